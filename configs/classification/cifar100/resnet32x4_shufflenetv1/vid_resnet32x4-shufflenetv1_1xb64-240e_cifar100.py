# VID: ResNet-32x4 -> ShuffleNetV1.
_base_ = [
    '../_base_/resnet32x4_shufflenetv1.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/vid.py',
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
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
