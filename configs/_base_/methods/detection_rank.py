# Ranking only.
distillation = dict(
    losses=dict(type='mmrkkd.KendallLoss', rank_weight=1.0, steepness=1.0),
    task_weight=1.0,
)
