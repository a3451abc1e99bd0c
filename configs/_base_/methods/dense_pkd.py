# PKD with the weight 10 that is published for one-stage detectors, on every
# level of the pyramid, of which the released code takes the first four.
distillation = dict(
    losses=dict(
        type='mmrkkd.PKDLoss', student_layers='neck[*]', loss_weight=10.0
    ),
    task_weight=1.0,
)
