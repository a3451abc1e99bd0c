# RKD: WRN-40-2 -> WRN-16-2.
_base_ = [
    '../_base_/wrn40-2_wrn16-2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/rkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation, feature_size=32)
