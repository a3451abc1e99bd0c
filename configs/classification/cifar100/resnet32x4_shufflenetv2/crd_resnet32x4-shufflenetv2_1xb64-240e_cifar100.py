# CRD: ResNet-32x4 -> ShuffleNetV2.
_base_ = [
    '../_base_/resnet32x4_shufflenetv2.py',
    '../../../_base_/datasets/cifar100_contrastive.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/crd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation, feature_size=32)
optim_wrapper = dict(optimizer=dict(lr=0.01))
