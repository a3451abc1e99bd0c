# CAT-KD: ResNet-32x4 -> ShuffleNetV2.
_base_ = [
    '../_base_/resnet32x4_shufflenetv2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/catkd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        loss_weight=600.0,
        resolution=4,
        normalize=True,
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
