# KD + RK: KD and Kendall's tau, gamma = alpha = .9 and k = 1.
distillation = dict(
    losses=dict(
        type='mmrkkd.RankKDLoss',
        temperature=4.0,
        kd_weight=0.9,
        rank_weight=0.9,
        min_std=0,
        steepness=1.0,
        form=1,
    ),
    task_weight=0.1,
)
