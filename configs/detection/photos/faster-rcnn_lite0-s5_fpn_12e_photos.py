# A limited student: EfficientNet-Lite0 without its last two stages. Its early
# features are as good as the whole one's, its classes are not.
_base_ = './_base_photos.py'

model = dict(
    backbone=dict(
        variant=0,
        num_stages=5,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights + '/efficientnet-lite0-57934424.pth',
        ),
    ),
    neck=dict(in_channels=[24, 40, 112]),
)
