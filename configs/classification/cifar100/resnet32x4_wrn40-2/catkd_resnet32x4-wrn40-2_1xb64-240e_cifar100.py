# CAT-KD: ResNet-32x4 -> WRN-40-2. Its authors have no setting for this pair;
# this is that of ResNet-32x4 and ResNet-8x4.
_base_ = [
    '../_base_/resnet32x4_wrn40-2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/catkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation, feature_size=32)
