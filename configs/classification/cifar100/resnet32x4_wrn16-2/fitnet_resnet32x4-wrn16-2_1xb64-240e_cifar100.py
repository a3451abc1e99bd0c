# FitNet: ResNet-32x4 -> WRN-16-2.
_base_ = [
    '../_base_/resnet32x4_wrn16-2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/fitnet.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=['backbone.block2'],
        teacher_layers=['backbone.layer2'],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
