# The student alone.
_base_ = './_base_20e.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrkkd.CIFARResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=_base_.num_classes,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
