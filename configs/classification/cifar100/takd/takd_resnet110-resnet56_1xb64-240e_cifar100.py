# TAKD, first link: ResNet-110 teaches the assistant ResNet-56.
_base_ = [
    '../../../_base_/models/cifar/resnet56.py',
    '../../../_base_/datasets/cifar100.py',
    '../../../_base_/schedules/cifar100_240e.py',
    '../../../_base_/methods/kd.py',
    '../../_base_/runtime.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/../resnet110_1xb64-240e_cifar100.py',
        checkpoint='checkpoints/cifar100/resnet110.pth',
    ),
    **_base_.distillation,
)
