# MLKD: ResNet-32x4 -> ResNet-8x4.
_base_ = [
    '../_base_/resnet32x4_resnet8x4.py',
    '../../../_base_/datasets/cifar100_two_views.py',
    '../../../_base_/schedules/cifar100_mlkd_240e.py',
    '../../../_base_/methods/mlkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
