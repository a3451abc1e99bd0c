# 1,736,564 parameters.
_base_ = './resnet20.py'

model = dict(backbone=dict(depth=110))
