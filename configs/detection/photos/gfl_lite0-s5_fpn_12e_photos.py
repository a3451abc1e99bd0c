# A limited dense student: EfficientNet-Lite0 without its last two stages.
_base_ = [
    './faster-rcnn_lite0-s5_fpn_12e_photos.py',
    '../../_base_/models/gfl_photos.py',
]

model = dict(
    _delete_=True,
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck=dict(
        in_channels=_base_.model.neck.in_channels,
        **_base_.gfl_neck,
    ),
    **_base_.gfl,
)
