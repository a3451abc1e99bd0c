# CAT-KD on ImageNet: the setting of ResNet-34 -> ResNet-18.
_base_ = './catkd.py'

distillation = dict(losses=dict(loss_weight=0.5, resolution=4))
