# MobileNetV1 alone.
_base_ = [
    '../../_base_/models/mobilenet-v1_imagenet.py',
    '../../_base_/datasets/imagenet.py',
    '../../_base_/schedules/imagenet_100e.py',
    '../_base_/runtime.py',
]
