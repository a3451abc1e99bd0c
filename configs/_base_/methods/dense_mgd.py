# MGD on every level of the pyramid, as released for RetinaNet.
distillation = dict(
    losses=dict(
        type='mmrkkd.MGDLoss',
        student_layers='neck[*]',
        masked=0.65,
        loss_weight=2e-5,
    ),
    task_weight=1.0,
)
