# DKD and ReviewKD, each as alone; the settings of DKD's authors.
_base_ = './detection_dkd.py'

distillation = dict(
    losses=[
        _base_.distillation.losses,
        dict(
            type='mmrkkd.ReviewKDLoss',
            student_layers='neck[*]',
            loss_weight=2.0,
        ),
    ]
)
