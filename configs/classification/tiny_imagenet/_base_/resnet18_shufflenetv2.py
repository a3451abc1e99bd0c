# ResNet-18 teaches ShuffleNetV2.
_base_ = '../../../_base_/models/cifar/shufflenet-v2.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=dict(_base_.model, head=dict(_base_.model.head, num_classes=200)),
    teacher=dict(
        config='{{ fileDirname }}/../resnet18_1xb128-240e_tiny-imagenet.py',
        checkpoint='checkpoints/tiny_imagenet/resnet18.pth',
    ),
)
