# CrossKD of GFL with its term of boxes, and RK of the crossed scores. No paper
# has this pair: k = 1 and a weight of 1 for RK are ours.
_base_ = './dense_crosskd_rk.py'

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
