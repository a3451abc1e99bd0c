# MGD on every level of the pyramid, as released for RetinaNet.
_base_ = './detection_mgd.py'

distillation = dict(
    losses=dict(student_layers='neck[*]', masked=0.65, loss_weight=2e-5)
)
