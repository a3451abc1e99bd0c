# KD: .1 CE + .9 KL at T = 4, as in the CIFAR-100 tables.
distillation = dict(
    losses=dict(type='mmrkkd.KDLoss', temperature=4.0, loss_weight=0.9),
    task_weight=0.1,
)
