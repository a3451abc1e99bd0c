# BinaryKD of the teacher's surest proposals, answered by the student's, and
# the ranking of their classes.
_base_ = [
    'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_ms-480-800-3x_coco.py',
    '../../_base_/teachers/sparse-rcnn_r101_coco.py',
    '../../_base_/methods/dense_rkkd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
