# BinaryKD of every cell, and the ranking of the classes in the teacher's best
# cells of each image.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
    '../../_base_/teachers/fcos_r101_coco.py',
    '../../_base_/methods/dense_rkkd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
