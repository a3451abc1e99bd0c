# CRD with a row for each of the 1,281,167 training images of ImageNet: its
# two memory banks take 1.3 GB.
distillation = dict(
    losses=dict(type='mmrkkd.CRDLoss', num_data=1281167, loss_weight=0.8),
    task_weight=1.0,
)
