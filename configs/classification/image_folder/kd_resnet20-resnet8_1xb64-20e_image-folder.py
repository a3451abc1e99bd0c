# KL divergence alone: .1 CE + .9 KL at T = 4.
_base_ = './resnet8_1xb64-20e_image-folder.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDClassifier',
    student=_base_.model,
    # The checkpoint that the teacher's config writes.
    teacher=dict(
        config='{{fileDirname}}/resnet20_1xb64-40e_image-folder.py',
        checkpoint='work_dirs/resnet20_1xb64-40e_image-folder/epoch_40.pth',
    ),
    losses=dict(type='mmrkkd.KDLoss', temperature=4.0, loss_weight=0.9),
    task_weight=0.1,
    gradient_interval=25,
)
