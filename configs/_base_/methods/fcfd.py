# FCFD beside KD, 20 epochs of warm-up; T is 8 for MobileNetV2. The cells name
# the layers, which end with what the backbone puts out; as it is here, those
# of a CIFAR ResNet. The weight of 1 of the cross entropy is ours.
distillation = dict(
    losses=[
        dict(type='mmrkkd.KDLoss', temperature=4.0, loss_weight=1.0),
        dict(
            type='mmrkkd.FCFDLoss',
            student_layers=[
                'backbone.layer1',
                'backbone.layer2',
                'backbone[0]',
            ],
            loss_weight=dict(type='linear', stop=5.0, end=20),
            temperature=4.0,
        ),
    ],
    task_weight=1.0,
)
