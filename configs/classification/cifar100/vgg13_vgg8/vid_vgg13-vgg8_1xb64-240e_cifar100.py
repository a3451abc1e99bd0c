# VID: VGG13 -> VGG8.
_base_ = [
    '../_base_/vgg13_vgg8.py',
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
            'backbone.block3',
            'backbone.block4',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
