# LSKD for transformers: the KL of standardised logits, 9 times KD's weight.
distillation = dict(
    losses=dict(
        type='mmrkkd.LSKDLoss',
        kd=dict(type='mmrkkd.KDLoss', temperature=2.0, loss_weight=9.0),
    ),
    task_weight=0.5,
)
