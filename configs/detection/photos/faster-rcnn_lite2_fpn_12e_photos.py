# The teacher: EfficientNet-Lite2.
_base_ = './_base_photos.py'

model = dict(
    backbone=dict(
        variant=2,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights + '/efficientnet-lite2-9656183e.pth',
        ),
    ),
    neck=dict(in_channels=[24, 48, 120, 352]),
)
