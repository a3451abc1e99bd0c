# VGG8 alone.
_base_ = [
    '../../_base_/models/cifar/vgg8.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../_base_/runtime.py',
]
