# KD + NORM: ResNet-32x4 -> ResNet-8x4.
_base_ = [
    '../_base_/resnet32x4_resnet8x4.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/norm.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation, feature_size=32)
