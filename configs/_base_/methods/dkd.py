# DKD: target and other classes apart, 20 epochs of warm-up. The weight of the
# other classes is that of most pairs; cells with another one say so.
distillation = dict(
    losses=dict(
        type='mmrkkd.DKDLoss',
        target_weight=1.0,
        non_target_weight=8.0,
        temperature=4.0,
        loss_weight=dict(type='linear', end=20),
    ),
    task_weight=1.0,
)
