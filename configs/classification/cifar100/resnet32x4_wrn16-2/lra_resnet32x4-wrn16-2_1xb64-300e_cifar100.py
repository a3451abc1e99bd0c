# LRA: ResNet-32x4 -> WRN-16-2.
_base_ = [
    '../_base_/resnet32x4_wrn16-2.py',
    '../../../_base_/datasets/cifar100_two_views.py',
    '../../../_base_/schedules/cifar100_lra_300e.py',
    '../../../_base_/methods/lra.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
