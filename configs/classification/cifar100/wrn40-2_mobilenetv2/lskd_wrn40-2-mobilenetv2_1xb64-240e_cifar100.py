# LSKD: WRN-40-2 -> MobileNetV2.
_base_ = [
    '../_base_/wrn40-2_mobilenetv2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/lskd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        kd=dict(type='mmrkkd.KDLoss', temperature=3.0, loss_weight=9.0),
    ),
    task_weight=_base_.distillation.task_weight,
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
