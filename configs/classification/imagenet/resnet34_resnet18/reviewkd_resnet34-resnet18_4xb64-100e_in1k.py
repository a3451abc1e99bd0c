# ReviewKD: ResNet-34 -> ResNet-18.
_base_ = [
    '../_base_/resnet34_resnet18.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/imagenet_reviewkd.py',
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
            'neck',
        ],
        teacher_layers=[
            'before backbone.layer1.2.relu[1]',
            'before backbone.layer2.3.relu[1]',
            'before backbone.layer3.5.relu[1]',
            'before backbone.layer4.2.relu[1]',
            'neck',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
)
optim_wrapper = dict(optimizer=dict(lr=0.1))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=256)
