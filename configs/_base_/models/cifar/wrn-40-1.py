# 569,780 parameters.
_base_ = './wrn-16-1.py'

model = dict(backbone=dict(depth=40))
