# ResNet-110 teaches ResNet-32.
_base_ = '../../../_base_/models/cifar/resnet32.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/../resnet110_1xb64-240e_cifar100.py',
        checkpoint='checkpoints/cifar100/resnet110.pth',
    ),
)
