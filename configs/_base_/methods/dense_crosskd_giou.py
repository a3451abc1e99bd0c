# CrossKD of RetinaNet and ATSS with its term of boxes, as published: they are
# crossed as the scores are.
_base_ = './dense_crosskd.py'

distillation = dict(
    matching=dict(cross_box_layer='auto'),
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
