# OFD: ResNet-110 -> ResNet-32.
_base_ = [
    '../_base_/resnet110_resnet32.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/ofd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'before backbone.layer1.4.relu[1]',
            'before backbone.layer2.4.relu[1]',
            'before backbone.layer3.4.relu[1]',
        ],
        teacher_layers=[
            'before backbone.layer1.17.relu[1]',
            'before backbone.layer2.17.relu[1]',
            'before backbone.layer3.17.relu[1]',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
