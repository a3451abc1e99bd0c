# FitNet: ResNet-110 -> ResNet-20.
_base_ = [
    '../_base_/resnet110_resnet20.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/fitnet.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=['backbone.layer2'],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
