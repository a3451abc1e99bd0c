# VGG13 teaches MobileNetV2.
_base_ = '../../../_base_/models/cifar/mobilenet-v2-half.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/../vgg13_1xb64-240e_cifar100.py',
        checkpoint='checkpoints/cifar100/vgg13.pth',
    ),
)
