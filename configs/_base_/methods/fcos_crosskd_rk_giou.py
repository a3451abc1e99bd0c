# CrossKD of FCOS with its term of boxes and its published weights, and RK of
# the crossed scores. No paper has this pair: k = 1 and a weight of 1 for RK
# are ours.
_base_ = './fcos_crosskd_rk.py'

distillation = dict(
    matching=dict(cross_box_layer='auto'),
    losses=[
        dict(_base_.distillation.losses),
        dict(
            type='mmrkkd.BoxGIoULoss',
            difference=False,
            loss_weight=0.75,
            locations='confidence',
        ),
    ],
)
