# DKD on ImageNet: T = 1, no warm-up; the cells set the other classes' weight.
distillation = dict(
    losses=dict(
        type='mmrkkd.DKDLoss',
        target_weight=1.0,
        non_target_weight=0.5,
        temperature=1.0,
    ),
    task_weight=1.0,
)
