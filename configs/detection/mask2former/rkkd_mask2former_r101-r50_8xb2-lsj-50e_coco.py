# KD of the teacher's surest queries, answered by the student's, and the
# ranking of their classes.
_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    '../../_base_/teachers/mask2former_r101_coco.py',
    '../../_base_/methods/detection_rkkd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
