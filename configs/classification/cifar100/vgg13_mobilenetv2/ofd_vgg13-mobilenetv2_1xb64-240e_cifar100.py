# OFD: VGG13 -> MobileNetV2.
_base_ = [
    '../_base_/vgg13_mobilenetv2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/ofd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.stage1',
            'backbone.stage2',
            'backbone.stage3',
            'backbone.stage4',
        ],
        teacher_layers=[
            'backbone.block1.4',
            'backbone.block2.4',
            'backbone.block3.4',
            'backbone.block4.4',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
