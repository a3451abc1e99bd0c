# CRD: VGG13 -> VGG8.
_base_ = [
    '../_base_/vgg13_vgg8.py',
    '../../../_base_/datasets/cifar100_contrastive.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/crd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation, feature_size=32)
