# KD + FCFD: WRN-40-2 -> WRN-40-1.
_base_ = [
    '../_base_/wrn40-2_wrn40-1.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/fcfd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=[
        _base_.distillation.losses[0],
        dict(
            _base_.distillation.losses[1],
            student_layers=[
                'backbone.block1',
                'backbone.block2',
                'backbone[0]',
            ],
        ),
    ],
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
optim_wrapper = dict(optimizer=dict(nesterov=True))
