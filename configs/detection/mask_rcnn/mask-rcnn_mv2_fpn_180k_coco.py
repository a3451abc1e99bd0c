# The student alone: Mask R-CNN with MobileNetV2 and FPN.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../../_base_/models/mobilenet-v2_fpn.py',
    '../../_base_/datasets/coco_instance.py',
    '../../_base_/iteration_runtime.py',
    '../../_base_/schedules/schedule_180k.py',
]
model = dict(
    backbone=dict(_delete_=True, **_base_.student_backbone),
    neck=dict(in_channels=_base_.student_channels),
)
