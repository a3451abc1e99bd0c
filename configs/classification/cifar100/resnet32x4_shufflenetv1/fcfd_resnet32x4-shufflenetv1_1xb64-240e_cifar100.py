# KD + FCFD: ResNet-32x4 -> ShuffleNetV1.
_base_ = [
    '../_base_/resnet32x4_shufflenetv1.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/fcfd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=[
        _base_.distillation.losses[0],
        dict(
            _base_.distillation.losses[1],
            student_layers=[
                'backbone.layer1',
                'backbone.layer2',
                'backbone[0]',
            ],
        ),
    ],
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
optim_wrapper = dict(optimizer=dict(lr=0.01, nesterov=True))
