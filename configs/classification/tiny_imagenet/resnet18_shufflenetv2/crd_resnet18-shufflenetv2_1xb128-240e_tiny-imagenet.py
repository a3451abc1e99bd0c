# CRD: ResNet-18 -> ShuffleNetV2. CIFAR-100's weight: the papers print none for
# this data set.
_base_ = [
    '../_base_/resnet18_shufflenetv2.py',
    '../../../_base_/datasets/tiny_imagenet_contrastive.py',
    '../../../_base_/schedules/tiny_imagenet_240e.py',
    '../../../_base_/methods/crd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        num_data=100000,
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=64,
)
