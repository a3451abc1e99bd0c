# MLKD: WRN-40-2 -> MobileNetV2. Its epochs and its learning rate are those of
# LSKD's tables.
_base_ = [
    '../_base_/wrn40-2_mobilenetv2.py',
    '../../../_base_/datasets/cifar100_two_views.py',
    '../../../_base_/schedules/cifar100_mlkd_480e.py',
    '../../../_base_/methods/mlkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
optim_wrapper = dict(optimizer=dict(lr=0.005))
