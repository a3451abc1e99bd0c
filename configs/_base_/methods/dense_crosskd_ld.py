# CrossKD of GFL with its term of boxes, as published: the distributions of
# their sides, crossed as the scores are; 68 is its 4 times 17 distances.
_base_ = './dense_crosskd.py'

distillation = dict(
    matching=dict(cross_box_layer='auto'),
    losses=[
        dict(_base_.distillation.losses),
        dict(
            type='mmrkkd.LDLoss',
            temperature=1.0,
            loss_weight=68.0,
            locations='confidence',
        ),
    ],
)
