# ICKD-C: which channels of the last map go together.
distillation = dict(
    losses=dict(
        type='mmrkkd.ICKDLoss', student_layers='backbone[*]', loss_weight=2.5
    ),
    task_weight=1.0,
)
