# KD + RK on ImageNet: gamma = alpha = .5, k = 1.
distillation = dict(
    losses=dict(
        type='mmrkkd.RankKDLoss',
        temperature=1.0,
        kd_weight=0.5,
        rank_weight=0.5,
        min_std=0,
        steepness=1.0,
        form=1,
    ),
    task_weight=0.5,
)
