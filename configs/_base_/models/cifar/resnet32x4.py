# 7,433,860 parameters.
_base_ = './resnet8x4.py'

model = dict(backbone=dict(depth=32))
