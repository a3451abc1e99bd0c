# CAT-KD: ResNet-50 -> MobileNetV1. Its authors have no setting for this
# student; this is theirs for MobileNetV2.
_base_ = [
    '../_base_/resnet50_mobilenetv1.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/imagenet_catkd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        loss_weight=10.0,
        resolution=2,
        normalize=True,
    ),
    task_weight=_base_.distillation.task_weight,
)
