# KD + FCFD: ResNet-110 -> ResNet-20. Its authors have no weight for this pair;
# this is that of ResNet-56 and ResNet-20.
_base_ = [
    '../_base_/resnet110_resnet20.py',
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
                'backbone.layer1',
                'backbone.layer2',
                'backbone[0]',
            ],
            loss_weight=dict(type='linear', stop=0.02, end=20),
        ),
    ],
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
optim_wrapper = dict(optimizer=dict(nesterov=True))
