# LRA: ResNet-50 -> MobileNetV1. No weight is known for ImageNet: lambda is
# CIFAR-100's.
_base_ = [
    '../_base_/resnet50_mobilenetv1.py',
    '../../../_base_/datasets/imagenet_two_views.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/lra.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
