# AT: ResNet-50 -> MobileNetV1.
_base_ = [
    '../_base_/resnet50_mobilenetv1.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/at.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.stage2',
            'backbone.stage3',
            'backbone.stage4',
            'backbone.stage5',
        ],
        teacher_layers=[
            'backbone.layer1',
            'backbone.layer2',
            'backbone.layer3',
            'backbone.layer4',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
)
