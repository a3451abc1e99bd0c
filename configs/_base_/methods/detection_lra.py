# LRA of the class scores of boxes. No paper has it: its regularization is the
# published one, its weight is ours.
distillation = dict(
    losses=dict(type='mmrkkd.LRALoss', loss_weight=0.5, regularization=1.0),
    task_weight=1.0,
)
