# KD: ResNet-56 -> PVT-Ti.
_base_ = [
    '../_base_/resnet56_pvt-tiny.py',
    '../../../_base_/datasets/cifar100_224.py',
    '../../../_base_/schedules/vit_300e.py',
    '../../../_base_/methods/vit_kd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
