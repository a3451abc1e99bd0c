# LRA: WRN-40-2 -> ShuffleNetV1. The paper has one learning rate for all
# students.
_base_ = [
    '../_base_/wrn40-2_shufflenetv1.py',
    '../../../_base_/datasets/cifar100_two_views.py',
    '../../../_base_/schedules/cifar100_lra_300e.py',
    '../../../_base_/methods/lra.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
