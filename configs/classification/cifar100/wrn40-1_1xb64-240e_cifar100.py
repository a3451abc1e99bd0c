# WRN-40-1 alone.
_base_ = [
    '../../_base_/models/cifar/wrn-40-1.py',
    '../../_base_/datasets/cifar100.py',
    '../../_base_/schedules/cifar100_240e.py',
    '../_base_/runtime.py',
]
