# The student alone: RetinaNet with MobileNetV2.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../../_base_/models/mobilenet-v2_fpn.py',
]
model = dict(
    backbone=dict(_delete_=True, **_base_.student_backbone),
    neck=dict(in_channels=_base_.student_channels),
)
