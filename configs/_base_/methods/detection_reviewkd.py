# ReviewKD on every level of the pyramid, the settings that its authors' code
# has for ResNet-50 and MobileNetV2 on COCO.
distillation = dict(
    losses=dict(
        type='mmrkkd.ReviewKDLoss', student_layers='neck[*]', loss_weight=2.0
    ),
    task_weight=1.0,
)
