# SP: which images of a batch resemble each other, by the last map.
distillation = dict(
    losses=dict(
        type='mmrkkd.SPLoss', student_layers='backbone[*]', loss_weight=3000.0
    ),
    task_weight=1.0,
)
