# CAT-KD: ResNet-34 -> ResNet-18.
_base_ = [
    '../_base_/resnet34_resnet18.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/imagenet_catkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
