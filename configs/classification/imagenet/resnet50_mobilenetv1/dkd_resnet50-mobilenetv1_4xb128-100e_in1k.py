# DKD: ResNet-50 -> MobileNetV1.
_base_ = [
    '../_base_/resnet50_mobilenetv1.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/imagenet_dkd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(_base_.distillation.losses, non_target_weight=2.0),
    task_weight=_base_.distillation.task_weight,
)
