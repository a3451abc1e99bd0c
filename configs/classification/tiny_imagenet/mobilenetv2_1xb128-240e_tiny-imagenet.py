# MobileNetV2 alone.
_base_ = [
    '../../_base_/models/cifar/mobilenet-v2_tinyimagenet.py',
    '../../_base_/datasets/tiny_imagenet.py',
    '../../_base_/schedules/tiny_imagenet_240e.py',
    '../_base_/runtime.py',
]
