# KD of the class scores of boxes. No paper prints its weights on COCO: T = 1
# and a weight of 1 are ours.
distillation = dict(
    losses=dict(type='mmrkkd.KDLoss', temperature=1.0, loss_weight=1.0),
    task_weight=1.0,
)
