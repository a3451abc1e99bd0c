# FCFD beside KD, 20 epochs of warm-up. The weights are those of most of its
# authors' pairs; cells with others say so, and name the layers, which end with
# what the backbone puts out; as it is here, those of a CIFAR ResNet.
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
