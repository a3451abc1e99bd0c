# CrossKD's classification term + Kendall's tau, both of the crossed scores.
# Its terms of boxes are not here; nobody has a number of this pair on COCO.
_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../../_base_/teachers/atss_r101_coco.py',
    '../../_base_/methods/dense_crosskd_rk.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
