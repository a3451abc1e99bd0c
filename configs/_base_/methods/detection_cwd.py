# CWD on every level of the pyramid, with the weight and the temperature that
# MMRazor has for detectors.
distillation = dict(
    losses=dict(
        type='mmrkkd.CWDLoss',
        student_layers='neck[*]',
        temperature=1.0,
        loss_weight=10.0,
    ),
    task_weight=1.0,
)
