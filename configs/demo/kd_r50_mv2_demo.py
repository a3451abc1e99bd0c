# KL only: the demo's student learns from the demo's teacher as well.
_base_ = './faster-rcnn_mv2_demo.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/faster-rcnn_r50_demo.py',
        # Where tools/demo.py trains it.
        checkpoint='work_dirs/demo/teacher/iter_250.pth',
    ),
    losses=dict(type='mmrkkd.KDLoss', temperature=1.0, loss_weight=1.0),
)
