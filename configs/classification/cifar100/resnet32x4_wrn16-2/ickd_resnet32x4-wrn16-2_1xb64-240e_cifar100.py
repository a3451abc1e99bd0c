# ICKD-C: ResNet-32x4 -> WRN-16-2.
_base_ = [
    '../_base_/resnet32x4_wrn16-2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/ickd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation, feature_size=32)
