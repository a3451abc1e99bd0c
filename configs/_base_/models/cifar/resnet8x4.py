# 1,233,540 parameters.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrkkd.CIFARResNet', depth=8, wide=True),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        # PyTorch's start, as in the code behind the published tables:
        # MMPretrain's (deviation 0.01) gives almost constant logits.
        init_cfg=None,
        num_classes=100,
        in_channels=256,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
