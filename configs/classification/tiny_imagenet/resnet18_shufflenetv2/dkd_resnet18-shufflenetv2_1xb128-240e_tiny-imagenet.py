# DKD: ResNet-18 -> ShuffleNetV2. CIFAR-100's weights: the papers print none
# for this data set.
_base_ = [
    '../_base_/resnet18_shufflenetv2.py',
    '../../../_base_/datasets/tiny_imagenet.py',
    '../../../_base_/schedules/tiny_imagenet_240e.py',
    '../../../_base_/methods/dkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
