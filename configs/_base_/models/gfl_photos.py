# A dense detector on photos of a long side of 320: GFL of 96 channels, levels
# of strides 8 to 64, anchors of 32 to 256 pixels. Backbone and the neck's
# in_channels are its user's.
gfl_neck = dict(
    type='FPN',
    out_channels=96,
    start_level=1,
    add_extra_convs='on_output',
    num_outs=4,
)
gfl = dict(
    type='GFL',
    bbox_head=dict(
        type='GFLHead',
        num_classes=20,
        in_channels=96,
        feat_channels=96,
        stacked_convs=2,
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=4,
            scales_per_octave=1,
            strides=[8, 16, 32, 64],
        ),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        reg_max=16,
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(type='ATSSAssigner', topk=9),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=300,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=50,
    ),
)
