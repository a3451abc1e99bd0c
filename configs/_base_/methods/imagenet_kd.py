# KD on ImageNet: .5 CE + .5 KL at T = 1.
distillation = dict(
    losses=dict(type='mmrkkd.KDLoss', temperature=1.0, loss_weight=0.5),
    task_weight=0.5,
)
