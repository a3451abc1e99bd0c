# FGD on the levels p2 to p5, as released for two-stage detectors.
distillation = dict(
    losses=dict(
        type='mmrkkd.FGDLoss',
        student_layers=['neck[0]', 'neck[1]', 'neck[2]', 'neck[3]'],
        foreground_weight=5e-5,
        background_weight=2.5e-5,
        attention_weight=5e-5,
        relation_weight=5e-7,
        temperature=0.5,
    ),
    task_weight=1.0,
)
