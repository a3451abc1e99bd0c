# DIST on ImageNet: T = 1.
distillation = dict(
    losses=dict(
        type='mmrkkd.DISTLoss',
        inter_weight=2.0,
        intra_weight=2.0,
        temperature=1.0,
    ),
    task_weight=1.0,
)
