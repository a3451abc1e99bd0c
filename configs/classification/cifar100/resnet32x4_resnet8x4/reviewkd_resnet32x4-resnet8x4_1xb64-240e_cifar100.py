# ReviewKD: ResNet-32x4 -> ResNet-8x4.
_base_ = [
    '../_base_/resnet32x4_resnet8x4.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/reviewkd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.layer1',
            'backbone.layer2',
            'backbone.layer3',
            'neck',
        ],
        teacher_layers=[
            'before backbone.layer1.4.relu[1]',
            'before backbone.layer2.4.relu[1]',
            'before backbone.layer3.4.relu[1]',
            'neck',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
