# ResNet-50 teaches MobileNetV1. The teacher is MMPretrain's: 76.55 % where the
# papers' torchvision weights have 76.16 %.
_base_ = '../../../_base_/models/mobilenet-v1_imagenet.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='mmpretrain::resnet/resnet50_8xb32_in1k.py',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/'
        'resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth',
    ),
)
