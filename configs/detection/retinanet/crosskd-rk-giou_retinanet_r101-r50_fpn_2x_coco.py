# CrossKD with its term of boxes + Kendall's tau of the crossed scores: nobody
# has a number of this pair on COCO.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_2x_coco.py',
    '../../_base_/teachers/retinanet_r101_coco.py',
    '../../_base_/methods/dense_crosskd_rk_giou.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
