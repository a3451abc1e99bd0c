# CTKD: KD with one learned temperature, trained against the student.
distillation = dict(
    losses=dict(
        type='mmrkkd.CTKDLoss',
        loss_weight=0.9,
        ramp=dict(type='cosine', end=10),
    ),
    task_weight=0.1,
)
