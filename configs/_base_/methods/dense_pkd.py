# PKD with the weight 10 that is published for one-stage detectors, on every
# level of the pyramid, of which the released code takes the first four.
_base_ = './detection_pkd.py'

distillation = dict(losses=dict(student_layers='neck[*]', loss_weight=10.0))
