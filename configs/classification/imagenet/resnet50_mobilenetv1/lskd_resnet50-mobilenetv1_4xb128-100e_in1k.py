# LSKD: ResNet-50 -> MobileNetV1.
_base_ = [
    '../_base_/resnet50_mobilenetv1.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/lskd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
