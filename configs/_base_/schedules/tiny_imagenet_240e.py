# 240 epochs of 128 images: LRA's schedule on Tiny-ImageNet.
_base_ = './cifar100_240e.py'

auto_scale_lr = dict(base_batch_size=128)
