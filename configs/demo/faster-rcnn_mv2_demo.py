# The demo's student by itself: the teacher's detector with a MobileNetV2.
_base_ = './faster-rcnn_r50_demo.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
    neck=dict(in_channels=[24, 32, 96, 320]),
)

# Shorter than the teacher's: a student that has not learnt everything yet
# leaves the teacher something to say.
train_cfg = dict(max_iters=200)
param_scheduler = dict(total_steps=200)
