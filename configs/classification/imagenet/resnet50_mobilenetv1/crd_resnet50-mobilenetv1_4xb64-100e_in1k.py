# CRD: ResNet-50 -> MobileNetV1.
_base_ = [
    '../_base_/resnet50_mobilenetv1.py',
    '../../../_base_/datasets/imagenet_contrastive.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/imagenet_crd.py',
    '../../_base_/runtime.py',
]

model = dict(**_base_.distillation)
optim_wrapper = dict(optimizer=dict(lr=0.1))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=256)
