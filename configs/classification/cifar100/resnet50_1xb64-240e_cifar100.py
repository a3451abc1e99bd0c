# ResNet-50 alone.
_base_ = [
    '../../_base_/models/cifar/resnet50.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../_base_/runtime.py',
]
