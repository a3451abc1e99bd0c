# The student by itself: the teacher's detector with a MobileNetV2.
_base_ = ['./fcos_r50_demo.py', '../_base_/models/mv2_demo.py']

model = dict(backbone=_base_.mv2_backbone, neck=_base_.mv2_neck)

train_cfg = dict(max_iters=250)
param_scheduler = dict(total_steps=250)
