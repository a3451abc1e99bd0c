# ReviewKD: WRN-40-2 -> ResNet-8x4. Its authors have no weight for this pair;
# this is that of most.
_base_ = [
    '../_base_/wrn40-2_resnet8x4.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/reviewkd.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.layer1',
            'backbone.layer2',
            'backbone.layer3',
            'neck',
        ],
        teacher_layers=[
            'backbone.block2.0.bn1',
            'backbone.block3.0.bn1',
            'backbone.bn1',
            'neck',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
    feature_size=32,
)
