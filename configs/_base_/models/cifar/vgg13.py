# 9,462,180 parameters.
_base_ = './vgg8.py'

model = dict(backbone=dict(depth=13))
