# LRA: two views a step, longer, and the rate falls at the same epochs.
_base_ = './cifar100_240e.py'

optim_wrapper = dict(optimizer=dict(lr=0.025))
train_cfg = dict(max_epochs=300)
