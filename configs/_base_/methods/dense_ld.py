# BinaryKD of every cell, and LD of the boxes of objects, with its published
# temperature and weight; its valuable localization region is not here.
_base_ = './dense_kd.py'

distillation = dict(
    losses=[
        dict(_base_.distillation.losses),
        dict(type='mmrkkd.LDLoss', temperature=10.0, loss_weight=0.25),
    ]
)
