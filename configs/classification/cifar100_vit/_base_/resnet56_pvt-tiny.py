# ResNet-56 teaches PVT-Ti.
_base_ = '../../../_base_/models/vit/pvt-tiny_cifar100.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/../../cifar100/'
        'resnet56_1xb64-240e_cifar100.py',
        checkpoint='checkpoints/cifar100/resnet56.pth',
    ),
    # The teacher sees the batch shrunk to its own 32 pixels.
    teacher_size=32,
)
