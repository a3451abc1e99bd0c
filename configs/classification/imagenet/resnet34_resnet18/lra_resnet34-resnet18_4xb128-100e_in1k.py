# LRA: ResNet-34 -> ResNet-18. No weight is known for ImageNet: lambda is
# CIFAR-100's.
_base_ = [
    '../_base_/resnet34_resnet18.py',
    '../../../_base_/datasets/imagenet_two_views.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/lra.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
