# LRA: ResNet-110 -> ResNet-32.
_base_ = [
    '../_base_/resnet110_resnet32.py',
    '../../../_base_/datasets/cifar100_two_views.py',
    '../../../_base_/schedules/cifar100_lra_300e.py',
    '../../../_base_/methods/lra.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
