# MLKD: VGG13 -> VGG8.
_base_ = [
    '../_base_/vgg13_vgg8.py',
    '../../../_base_/datasets/cifar100_two_views.py',
    '../../../_base_/schedules/cifar100_mlkd_240e.py',
    '../../../_base_/methods/mlkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
