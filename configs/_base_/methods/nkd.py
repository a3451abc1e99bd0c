# NKD, as in comparisons on the usual CIFAR-100 pairs.
distillation = dict(
    losses=dict(type='mmrkkd.NKDLoss', temperature=1.0, non_target_weight=1.5),
    task_weight=1.0,
)
