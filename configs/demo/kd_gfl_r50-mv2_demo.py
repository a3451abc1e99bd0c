# BinaryKD of every cell, the dense student's distillation.
_base_ = ['./gfl_mv2_demo.py', '../_base_/methods/dense_kd.py']

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/gfl_r50_demo.py',
        checkpoint='work_dirs/dense/teacher/iter_400.pth',
    ),
    **_base_.distillation,
)
