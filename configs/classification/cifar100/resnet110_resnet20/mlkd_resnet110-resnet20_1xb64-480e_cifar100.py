# MLKD: ResNet-110 -> ResNet-20. Its epochs are those of LSKD's tables.
_base_ = [
    '../_base_/resnet110_resnet20.py',
    '../../../_base_/datasets/cifar100_two_views.py',
    '../../../_base_/schedules/cifar100_mlkd_480e.py',
    '../../../_base_/methods/mlkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
