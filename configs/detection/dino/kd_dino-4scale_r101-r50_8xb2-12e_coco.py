# BinaryKD of the teacher's surest queries, answered by the student's.
_base_ = [
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    '../../_base_/teachers/dino-4scale_r101_coco.py',
    '../../_base_/methods/dense_kd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
