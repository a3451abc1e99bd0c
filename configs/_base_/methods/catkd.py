# CAT-KD: class activation maps. Weight and resolution differ from pair to
# pair: here those of ResNet-32x4 -> ResNet-8x4.
distillation = dict(
    losses=dict(
        type='mmrkkd.CATKDLoss',
        student_layers='backbone[0]',
        loss_weight=15.0,
        resolution=2,
        normalize=False,
    ),
    task_weight=1.0,
)
