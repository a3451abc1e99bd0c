# 2,255,156 parameters.
_base_ = './wrn-16-2.py'

model = dict(backbone=dict(depth=40))
