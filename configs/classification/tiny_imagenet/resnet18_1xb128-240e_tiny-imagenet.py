# ResNet-18 alone.
_base_ = [
    '../../_base_/models/cifar/resnet18.py',
    '../../_base_/datasets/tiny_imagenet.py',
    '../../_base_/schedules/tiny_imagenet_240e.py',
    '../_base_/runtime.py',
]

model = dict(head=dict(num_classes=200))
