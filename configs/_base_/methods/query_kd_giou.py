# BinaryKD of the paired queries, and the GIoU of where they say that their
# objects are, weighted by the teacher's highest probability. No paper has this
# pair: a weight of 1 for each is ours.
_base_ = './dense_kd.py'

distillation = dict(
    losses=[
        dict(_base_.distillation.losses),
        dict(
            type='mmrkkd.BoxGIoULoss',
            difference=False,
            loss_weight=1.0,
            locations='confidence',
        ),
    ],
)
