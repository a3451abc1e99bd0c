# T2T-ViT-7 from scratch on 224 x 224. The published student turns patches
# into tokens with Performers; MMPretrain has only the Transformer variant of
# that step, which is what runs here.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='T2T_ViT',
        img_size=224,
        in_channels=3,
        embed_dims=256,
        t2t_cfg=dict(token_dims=64, use_performer=False),
        num_layers=7,
        layer_cfgs=dict(num_heads=4, feedforward_channels=512),
        drop_path_rate=0.1,
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.02),
            dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
        ],
    ),
    neck=None,
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=100,
        in_channels=256,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
)
