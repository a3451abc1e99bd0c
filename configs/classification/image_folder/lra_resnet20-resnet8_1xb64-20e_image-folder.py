# LRA with its published lambda = 5, epsilon = 1.
_base_ = './kd_resnet20-resnet8_1xb64-20e_image-folder.py'

model = dict(
    losses=dict(_delete_=True, type='mmrkkd.LRALoss', loss_weight=5.0),
    task_weight=1.0,
)
