# ReviewKD: ResNet-50 -> MobileNetV1.
_base_ = [
    '../_base_/resnet50_mobilenetv1.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/imagenet_reviewkd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.stage2.1.1.1',
            'backbone.stage3.1.1.1',
            'backbone.stage4.5.1.1',
            'backbone.stage5.1.1.1',
            'neck',
        ],
        teacher_layers=[
            'before backbone.layer1.2.relu[2]',
            'before backbone.layer2.3.relu[2]',
            'before backbone.layer3.5.relu[2]',
            'before backbone.layer4.2.relu[2]',
            'neck',
        ],
        loss_weight=8.0,
        mid_channels=256,
    ),
    task_weight=_base_.distillation.task_weight,
)
optim_wrapper = dict(optimizer=dict(lr=0.1))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=256)
