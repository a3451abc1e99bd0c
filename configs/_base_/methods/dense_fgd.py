# FGD on every level of the pyramid, as released for RetinaNet and GFL.
_base_ = './detection_fgd.py'

distillation = dict(
    losses=dict(
        student_layers='neck[*]',
        foreground_weight=1e-3,
        background_weight=5e-4,
        attention_weight=5e-4,
        relation_weight=5e-6,
    )
)
