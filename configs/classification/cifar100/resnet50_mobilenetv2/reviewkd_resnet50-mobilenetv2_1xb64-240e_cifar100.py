# ReviewKD: ResNet-50 -> MobileNetV2. Its authors have no weight for this pair;
# this is that of most.
_base_ = [
    '../_base_/resnet50_mobilenetv2.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/reviewkd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.stage1',
            'backbone.stage2',
            'backbone.stage3',
            'backbone.stage4',
            'neck',
        ],
        teacher_layers=[
            'before backbone.layer1.2.relu[2]',
            'before backbone.layer2.3.relu[2]',
            'before backbone.layer3.5.relu[2]',
            'before backbone.layer4.2.relu[2]',
            'neck',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
