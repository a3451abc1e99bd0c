# ReviewKD on ImageNet: no warm-up to speak of (the released one ends with the
# first epoch). The cells set the weight, and name the stages.
_base_ = './reviewkd.py'

distillation = dict(losses=dict(loss_weight=1.0))
