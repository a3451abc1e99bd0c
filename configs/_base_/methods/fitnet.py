# FitNet: 100 times the square error of a regression onto the teacher's map.
# Published is the output of the second stage after the stem, which the cells
# name; as it is here, whatever the backbone puts out.
distillation = dict(
    losses=dict(
        type='mmrkkd.FitNetLoss',
        student_layers='backbone[*]',
        loss_weight=100.0,
    ),
    task_weight=1.0,
)
