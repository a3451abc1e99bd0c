# MLKD on ImageNet: halves instead of tenths, and T = 1 in the place of 4.
distillation = dict(
    losses=dict(
        type='mmrkkd.MLKDLoss',
        temperatures=(1.0, 3.0, 5.0, 2.0, 6.0),
        loss_weight=0.5,
    ),
    task_weight=0.5,
)
