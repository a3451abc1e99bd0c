# OFD: ResNet-32x4 -> WRN-40-2.
_base_ = [
    '../_base_/resnet32x4_wrn40-2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/ofd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.block2.0.bn1',
            'backbone.block3.0.bn1',
            'backbone.bn1',
        ],
        teacher_layers=[
            'before backbone.layer1.4.relu[1]',
            'before backbone.layer2.4.relu[1]',
            'before backbone.layer3.4.relu[1]',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
