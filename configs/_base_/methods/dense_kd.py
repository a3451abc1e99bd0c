# KD of scores that a sigmoid decides, as in CrossKD and BCKD.
distillation = dict(
    losses=dict(type='mmrkkd.BinaryKDLoss', beta=1.0, loss_weight=1.0),
    task_weight=1.0,
)
