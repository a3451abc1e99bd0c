# ResNet-18 teaches MobileNetV2.
_base_ = '../../../_base_/models/cifar/mobilenet-v2_tinyimagenet.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/../resnet18_1xb128-240e_tiny-imagenet.py',
        checkpoint='checkpoints/tiny_imagenet/resnet18.pth',
    ),
)
