# OFD: ResNet-34 -> ResNet-18. There is no released config of this pair; this
# is that of ResNet-50 and MobileNetV1.
_base_ = [
    '../_base_/resnet34_resnet18.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/ofd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'before backbone.layer1.1.relu[1]',
            'before backbone.layer2.1.relu[1]',
            'before backbone.layer3.1.relu[1]',
            'before backbone.layer4.1.relu[1]',
        ],
        teacher_layers=[
            'before backbone.layer1.2.relu[1]',
            'before backbone.layer2.3.relu[1]',
            'before backbone.layer3.5.relu[1]',
            'before backbone.layer4.2.relu[1]',
        ],
        loss_weight=0.0001,
    ),
    task_weight=_base_.distillation.task_weight,
)
optim_wrapper = dict(optimizer=dict(lr=0.05))
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=128)
