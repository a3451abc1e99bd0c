# MLKD: KL, batch and class correlations at five temperatures, two views.
distillation = dict(
    losses=dict(
        type='mmrkkd.MLKDLoss',
        temperatures=(4.0, 3.0, 5.0, 2.0, 6.0),
        loss_weight=0.9,
    ),
    task_weight=0.1,
)
