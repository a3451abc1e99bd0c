# PVT-Ti from scratch on 224 x 224, with MMDetection's backbone. The published
# student classifies a token of its last stage; MMDetection's has none, and
# the mean of that stage's 7 x 7 positions is classified instead.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmrkkd.TupleOutput',
        backbone=dict(
            type='mmdet.PyramidVisionTransformer',
            pretrain_img_size=224,
            num_layers=[2, 2, 2, 2],
            out_indices=(3,),
            # The student normalizes its last stage; the switch adds a norm
            # to the other three as well.
            norm_after_stage=True,
            drop_path_rate=0.1,
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
)
