# ICKD-C: ResNet-110 -> ResNet-20.
_base_ = [
    '../_base_/resnet110_resnet20.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/ickd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation, feature_size=32)
