# ResNet-34 teaches ResNet-18. The teacher is MMPretrain's: 73.62 % where the
# papers' torchvision weights have 73.31 %.
_base_ = 'mmpretrain::_base_/models/resnet18.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    teacher=dict(
        config='mmpretrain::resnet/resnet34_8xb32_in1k.py',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/'
        'resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth',
    ),
)
