# PKD on the levels p2 to p5, weight 6, as published for two-stage detectors.
distillation = dict(
    losses=dict(
        type='mmrkkd.PKDLoss',
        student_layers=['neck[0]', 'neck[1]', 'neck[2]', 'neck[3]'],
        loss_weight=6.0,
    ),
    task_weight=1.0,
)
