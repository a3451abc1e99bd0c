# A dense teacher without anchors: FCOS with the backbone and the neck of the
# demo's GFL. Three convolutions: CrossKD leaves it the last two.
_base_ = './gfl_r50_demo.py'

model = dict(
    type='FCOS',
    bbox_head=dict(
        _delete_=True,
        type='FCOSHead',
        num_classes=24,
        in_channels=64,
        feat_channels=64,
        stacked_convs=3,
        strides=[8, 16, 32],
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='GIoULoss'),
    ),
    train_cfg=None,
)
