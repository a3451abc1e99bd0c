# KD + RK for transformers: alpha = beta = 1, gamma = .5. The paper does not
# say which T; 2 is that of the code base whose settings it has.
distillation = dict(
    losses=dict(
        type='mmrkkd.RankKDLoss',
        temperature=2.0,
        kd_weight=1.0,
        rank_weight=0.5,
        min_std=0,
        steepness=1.0,
        form=1,
    ),
    task_weight=1.0,
)
