# CrossKD with its term of boxes and the published weights of FCOS.
_base_ = ['./fcos_mv2_demo.py', '../_base_/methods/fcos_crosskd_giou.py']

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/fcos_r50_demo.py',
        checkpoint='work_dirs/dense/fcos/iter_400.pth',
    ),
    **_base_.distillation,
)
