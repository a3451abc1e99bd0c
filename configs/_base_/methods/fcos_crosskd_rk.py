# CrossKD's classification term of FCOS, with its published weight, and RK of
# the crossed scores. No paper has this pair: k = 1 and a weight of 1 for RK
# are ours.
_base_ = './dense_crosskd_rk.py'

distillation = dict(losses=dict(kd=dict(loss_weight=0.4)))
