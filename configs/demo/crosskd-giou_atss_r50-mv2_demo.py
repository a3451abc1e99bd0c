# CrossKD with its term of boxes and the published weights of ATSS.
_base_ = ['./atss_mv2_demo.py', '../_base_/methods/dense_crosskd_giou.py']

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/atss_r50_demo.py',
        checkpoint='work_dirs/dense/atss/iter_400.pth',
    ),
    **_base_.distillation,
)
