# BinaryKD of every cell.
_base_ = [
    'gfl_r18_fpn_1x_coco.py',
    '../../_base_/teachers/gfl_r101_coco.py',
    '../../_base_/methods/dense_kd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
