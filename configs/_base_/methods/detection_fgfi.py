# FGFI with the released weight, and without it in the first 400 iterations,
# as released. Its code has one level; here every level of the pyramid has its
# own anchors, and the connector no ReLU, since the levels may be negative.
distillation = dict(
    losses=dict(
        type='mmrkkd.FGFILoss',
        student_layers='neck[*]',
        connector='conv',
        loss_weight=dict(
            type='linear', begin=400, end=401, stop=0.01, by='iteration'
        ),
    ),
    task_weight=1.0,
)
