# The student's backbone and the channels of its neck, for any FPN detector.
student_backbone = dict(
    type='MobileNetV2',
    # The 24-, 32-, 96- and 320-channel stages, strides 4 to 32. The default
    # takes the 1280-channel layer as the last.
    out_indices=(1, 2, 4, 6),
    # ImageNet's statistics are kept, and no stage is frozen.
    norm_cfg=dict(type='BN', requires_grad=False),
    norm_eval=True,
    init_cfg=dict(
        type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2'
    ),
)
student_channels = [24, 32, 96, 320]
