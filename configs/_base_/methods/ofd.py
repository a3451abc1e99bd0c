# OFD: maps before their activation, as far as the teacher's has a say. The
# cells name the layers: what a backbone puts out has passed its activation.
distillation = dict(
    losses=dict(
        type='mmrkkd.OFDLoss', student_layers='backbone[*]', loss_weight=1e-3
    ),
    task_weight=1.0,
)
