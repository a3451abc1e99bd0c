# CAT-KD: WRN-40-2 -> WRN-16-2.
_base_ = [
    '../_base_/wrn40-2_wrn16-2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/catkd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        loss_weight=12.0,
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
