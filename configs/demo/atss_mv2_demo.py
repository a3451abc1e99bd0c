# The student by itself: the teacher's detector with a MobileNetV2.
_base_ = './atss_r50_demo.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
    neck=dict(in_channels=[24, 32, 96, 320]),
)

train_cfg = dict(max_iters=250)
param_scheduler = dict(total_steps=250)
