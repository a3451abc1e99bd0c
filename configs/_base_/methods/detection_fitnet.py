# FitNet on every level of the pyramid. The AP of table 5 of RKKD is the only
# trace of it: no paper prints its weight on COCO, and 1 is ours. The levels
# may be negative, so the connector has no ReLU.
distillation = dict(
    losses=dict(
        type='mmrkkd.FitNetLoss',
        student_layers='neck[*]',
        connector='conv',
        loss_weight=1.0,
    ),
    task_weight=1.0,
)
