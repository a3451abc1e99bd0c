# WRN-40-2 teaches ResNet-8x4.
_base_ = '../../../_base_/models/cifar/resnet8x4.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/../wrn40-2_1xb64-240e_cifar100.py',
        checkpoint='checkpoints/cifar100/wrn40-2.pth',
    ),
)
