# BinaryKD of the teacher's surest queries, answered by the student's, and the
# ranking of their classes.
_base_ = [
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    '../../_base_/teachers/deformable-detr_r101_coco.py',
    '../../_base_/methods/dense_rkkd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
