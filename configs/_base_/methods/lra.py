# LRA: soft ranks, lambda = 5 and epsilon = 1. The paper does not say how its
# two views enter; here each has its cross entropy and its LRA term. The loss
# is averaged over the views while task losses are added up, hence the 2.
distillation = dict(
    losses=dict(
        type='mmrkkd.LRALoss', loss_weight=2 * 5.0, regularization=1.0
    ),
    task_weight=1.0,
)
