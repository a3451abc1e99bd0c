# ResNet-20 alone.
_base_ = [
    '../../_base_/models/cifar/resnet20.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../_base_/runtime.py',
]
