# 861,620 parameters.
_base_ = './resnet20.py'

model = dict(backbone=dict(depth=56))
