# DKD of the class scores of boxes: alpha = 1, beta = .25, T = 1, the settings
# that its authors' code has for COCO.
distillation = dict(
    losses=dict(
        type='mmrkkd.DKDLoss',
        target_weight=1.0,
        non_target_weight=0.25,
        temperature=1.0,
    ),
    task_weight=1.0,
)
