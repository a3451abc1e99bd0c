# MLKD on pairs of like architectures: two views a step at half the rate.
_base_ = './cifar100_240e.py'

optim_wrapper = dict(optimizer=dict(lr=0.025))
