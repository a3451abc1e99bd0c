# DKD, beta = 2 as for ResNet-56 -> ResNet-20; its warm-up of 20 of 240
# epochs is 2 of 20.
_base_ = './kd_resnet20-resnet8_1xb64-20e_image-folder.py'

model = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.DKDLoss',
        temperature=4.0,
        target_weight=1.0,
        non_target_weight=2.0,
        loss_weight=dict(type='linear', end=2),
    ),
    task_weight=1.0,
)
