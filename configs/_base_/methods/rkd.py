# RKD: distances and angles between the pooled vectors of a batch.
distillation = dict(
    losses=dict(
        type='mmrkkd.RKDLoss',
        student_layers='neck',
        distance_weight=25.0,
        angle_weight=50.0,
    ),
    task_weight=1.0,
)
