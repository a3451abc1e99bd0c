# The demo's dense students: MobileNetV2 in place of their teacher's ResNet-50.
mv2_backbone = dict(
    _delete_=True,
    type='MobileNetV2',
    out_indices=(1, 2, 4, 6),
    norm_cfg=dict(type='BN', requires_grad=True),
)
mv2_neck = dict(in_channels=[24, 32, 96, 320])
