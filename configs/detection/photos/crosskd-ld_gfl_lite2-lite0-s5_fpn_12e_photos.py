# CrossKD with its term of boxes.
_base_ = [
    'gfl_lite0-s5_fpn_12e_photos.py',
    '../../_base_/teachers/gfl_lite2_photos.py',
    '../../_base_/methods/dense_crosskd_ld.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
    gradient_interval=50,
)
