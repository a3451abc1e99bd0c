# FGFI, without it in the 50 iterations of the warm-up: as released it starts
# after 400, most of this schedule.
_base_ = [
    'faster-rcnn_lite0-s5_fpn_12e_photos.py',
    '../../_base_/teachers/faster-rcnn_lite2_photos.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    losses=dict(
        type='mmrkkd.FGFILoss',
        student_layers='neck[*]',
        connector='conv',
        loss_weight=dict(
            type='linear', begin=50, end=51, stop=0.01, by='iteration'
        ),
    ),
    task_weight=1.0,
    gradient_interval=50,
)
