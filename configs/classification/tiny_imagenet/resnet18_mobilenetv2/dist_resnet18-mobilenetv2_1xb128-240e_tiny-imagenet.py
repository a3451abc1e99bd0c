# DIST: ResNet-18 -> MobileNetV2. CIFAR-100's weights: the papers print none
# for this data set.
_base_ = [
    '../_base_/resnet18_mobilenetv2.py',
    '../../../_base_/datasets/tiny_imagenet.py',
    '../../../_base_/schedules/tiny_imagenet_240e.py',
    '../../../_base_/methods/dist.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
