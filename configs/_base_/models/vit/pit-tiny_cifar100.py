# PiT-Ti from scratch on 224 x 224: `pip install timm` first, as neither
# MMPretrain nor this package has the network.
model = dict(
    type='TimmClassifier',
    model_name='pit_ti_224',
    num_classes=100,
    drop_path_rate=0.1,
    loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
)
