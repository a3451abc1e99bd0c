# SP: WRN-40-2 -> WRN-40-1.
_base_ = [
    '../_base_/wrn40-2_wrn40-1.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/sp.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation, feature_size=32)
