# DIST: Pearson correlations along classes and along samples.
distillation = dict(
    losses=dict(
        type='mmrkkd.DISTLoss',
        inter_weight=2.0,
        intra_weight=2.0,
        temperature=4.0,
    ),
    task_weight=1.0,
)
