# PiT-Ti alone.
_base_ = [
    '../../_base_/models/vit/pit-tiny_cifar100.py',
    '../../_base_/datasets/cifar100_224.py',
    '../../_base_/schedules/vit_300e.py',
    '../_base_/runtime.py',
]
