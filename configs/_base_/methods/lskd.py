# LSKD: KD on standardised logits. T and weight are those of most pairs; cells
# with others say so.
distillation = dict(
    losses=dict(
        type='mmrkkd.LSKDLoss',
        kd=dict(type='mmrkkd.KDLoss', temperature=2.0, loss_weight=9.0),
    ),
    task_weight=0.1,
)
