# VID: ResNet-32x4 -> WRN-40-2.
_base_ = [
    '../_base_/resnet32x4_wrn40-2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/vid.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.block1',
            'backbone.block2',
            'backbone[0]',
        ],
        teacher_layers=[
            'backbone.layer1',
            'backbone.layer2',
            'backbone.layer3',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
