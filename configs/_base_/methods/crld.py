# CRLD: confident predictions within and across two views.
distillation = dict(
    losses=dict(
        type='mmrkkd.CRLDLoss',
        within_weight=2.0,
        cross_weight=0.5,
        temperature=4.0,
    ),
    task_weight=1.0,
)
