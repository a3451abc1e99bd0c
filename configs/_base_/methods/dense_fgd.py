# FGD on every level of the pyramid, as released for RetinaNet and GFL.
distillation = dict(
    losses=dict(
        type='mmrkkd.FGDLoss',
        student_layers='neck[*]',
        foreground_weight=1e-3,
        background_weight=5e-4,
        attention_weight=5e-4,
        relation_weight=5e-6,
        temperature=0.5,
    ),
    task_weight=1.0,
)
