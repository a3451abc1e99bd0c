# ReviewKD: ResNet-110 -> ResNet-20. Its authors have no weight for this pair;
# this is that of ResNet-56 and ResNet-20.
_base_ = [
    '../_base_/resnet110_resnet20.py',
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
            'before backbone.layer1.17.relu[1]',
            'before backbone.layer2.17.relu[1]',
            'before backbone.layer3.17.relu[1]',
            'neck',
        ],
        loss_weight=dict(type='linear', stop=0.6, end=20),
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
