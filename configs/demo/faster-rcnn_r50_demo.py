# The demo's teacher: Faster R-CNN with ResNet-50, from random weights.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', './demo_shapes.py']

# From scratch, so nothing is frozen and batch norm learns. 64 channels
# after the backbone and 64 RoIs an image make 128 pixels cheap on a CPU.
model = dict(
    backbone=dict(frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(out_channels=64),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # Half of the usual size: objects have 20 to 60 pixels.
        anchor_generator=dict(scales=[4]),
    ),
    roi_head=dict(
        # One sample a bin: RoIAlign is half of the work on a CPU otherwise.
        bbox_roi_extractor=dict(
            out_channels=64, finest_scale=28, roi_layer=dict(sampling_ratio=1)
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=24),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(max_per_img=20)
    ),
)

train_cfg = dict(max_iters=250)
param_scheduler = dict(total_steps=250)
