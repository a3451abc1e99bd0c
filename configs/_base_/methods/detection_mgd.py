# MGD on the levels p2 to p5, as released for two-stage detectors.
distillation = dict(
    losses=dict(
        type='mmrkkd.MGDLoss',
        student_layers=['neck[0]', 'neck[1]', 'neck[2]', 'neck[3]'],
        masked=0.45,
        loss_weight=5e-7,
    ),
    task_weight=1.0,
)
