# 4,231,976 parameters.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrkkd.MobileNetV1'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        # PyTorch's start, as in the code behind the published tables:
        # MMPretrain's (deviation 0.01) gives almost constant logits.
        init_cfg=None,
        num_classes=1000,
        in_channels=1024,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
