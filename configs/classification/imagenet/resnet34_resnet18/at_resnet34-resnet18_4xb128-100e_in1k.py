# AT: ResNet-34 -> ResNet-18.
_base_ = [
    '../_base_/resnet34_resnet18.py',
    '../../../_base_/datasets/imagenet.py',
    '../../../_base_/schedules/imagenet_100e.py',
    '../../../_base_/methods/at.py',
    '../../_base_/runtime.py',
]

model = dict(
    losses=dict(
        _base_.distillation.losses,
        student_layers=[
            'backbone.layer1',
            'backbone.layer2',
            'backbone.layer3',
            'backbone.layer4',
        ],
    ),
    task_weight=_base_.distillation.task_weight,
)
