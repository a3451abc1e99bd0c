# BinaryKD of every cell, and the ranking of the classes in the teacher's best
# cells of each image.
_base_ = [
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    '../../_base_/teachers/yolox_s_coco.py',
    '../../_base_/methods/dense_rkkd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
