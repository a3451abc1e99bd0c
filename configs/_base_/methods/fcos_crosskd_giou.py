# CrossKD of FCOS with its term of boxes and its published weights; where that
# has the IoU of the boxes, this has their GIoU.
_base_ = './fcos_crosskd.py'

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
