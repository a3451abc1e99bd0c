# TTM with the one setting that its authors' code shows (VGG13 -> VGG8).
distillation = dict(
    losses=dict(type='mmrkkd.TTMLoss', exponent=0.1, loss_weight=45.0),
    task_weight=1.0,
)
