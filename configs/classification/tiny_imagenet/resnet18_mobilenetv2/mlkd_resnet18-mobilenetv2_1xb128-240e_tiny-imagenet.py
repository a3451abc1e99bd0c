# MLKD: ResNet-18 -> MobileNetV2. CIFAR-100's weights: the papers print none
# for this data set.
_base_ = [
    '../_base_/resnet18_mobilenetv2.py',
    '../../../_base_/datasets/tiny_imagenet_two_views.py',
    '../../../_base_/schedules/tiny_imagenet_240e.py',
    '../../../_base_/methods/mlkd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
train_dataloader = dict(batch_size=128)
