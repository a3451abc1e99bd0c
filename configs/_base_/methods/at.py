# AT: attention maps. Published are the outputs of all stages, which the cells
# name; as it is here, whatever the backbone puts out.
distillation = dict(
    losses=dict(
        type='mmrkkd.ATLoss', student_layers='backbone[*]', loss_weight=1000.0
    ),
    task_weight=1.0,
)
