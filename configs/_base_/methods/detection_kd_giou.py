# KD of the class scores of boxes, and the GIoU of what student and teacher
# make of the sampled ones, weighted by the teacher's highest score. No paper
# has this pair: a weight of 1 for each is ours.
_base_ = './detection_kd.py'

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
