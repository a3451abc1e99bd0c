# OFD: ResNet-32x4 -> ShuffleNetV2.
_base_ = [
    '../_base_/resnet32x4_shufflenetv2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/ofd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.layer1',
            'backbone.layer2',
            'backbone.layer3',
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
optim_wrapper = dict(optimizer=dict(lr=0.01))
