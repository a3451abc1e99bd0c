# ResNet-56 teaches ResNet-20.
_base_ = '../../../_base_/models/cifar/resnet20.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/../resnet56_1xb64-240e_cifar100.py',
        checkpoint='checkpoints/cifar100/resnet56.pth',
    ),
)
