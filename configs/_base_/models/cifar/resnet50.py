# 23,705,252 parameters.
_base_ = 'mmpretrain::_base_/models/resnet50_cifar.py'

model = dict(
    # By default MMPretrain starts the last BN of every block at 0; the
    # networks of the published tables start it at 1.
    backbone=dict(zero_init_residual=False),
    head=dict(init_cfg=None, num_classes=100, topk=(1, 5)),
)
