# KD + RK of the class scores beside ReviewKD, each as alone. No paper has it.
_base_ = './detection_rkkd.py'

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
