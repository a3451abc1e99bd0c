# KD for transformers on CIFAR-100: .5 CE + KL at T = 2.
distillation = dict(
    losses=dict(type='mmrkkd.KDLoss', temperature=2.0, loss_weight=1.0),
    task_weight=0.5,
)
