# CTKD on ImageNet: a ramp of 5 epochs, CE and KL with weight 1.
distillation = dict(
    losses=dict(
        type='mmrkkd.CTKDLoss',
        loss_weight=1.0,
        ramp=dict(type='cosine', end=5),
    ),
    task_weight=1.0,
)
