# CrossKD's classification term of FCOS, with its published weight.
_base_ = './dense_crosskd.py'

distillation = dict(losses=dict(loss_weight=0.4))
