# LRA: ResNet-18 -> MobileNetV2. lambda = 10 here; the views are those of CRLD,
# as the paper does not describe its own.
_base_ = [
    '../_base_/resnet18_mobilenetv2.py',
    '../../../_base_/datasets/tiny_imagenet_two_views.py',
    '../../../_base_/schedules/tiny_imagenet_240e.py',
    '../../../_base_/methods/lra.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(_base_.distillation.losses, loss_weight=2 * 10.0),
    task_weight=_base_.distillation.task_weight,
)
train_dataloader = dict(batch_size=128)
