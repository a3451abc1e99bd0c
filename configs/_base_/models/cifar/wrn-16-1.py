# 180,916 parameters.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrkkd.CIFARWideResNet', depth=16, widen_factor=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        # PyTorch's start, as in the code behind the published tables:
        # MMPretrain's (deviation 0.01) gives almost constant logits.
        init_cfg=None,
        num_classes=100,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
