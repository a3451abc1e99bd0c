# KL + Kendall's tau, and where the boxes are.
_base_ = [
    'faster-rcnn_mv2_fpn_180k_coco.py',
    '../../_base_/teachers/faster-rcnn_r50_coco.py',
    '../../_base_/methods/detection_rkkd_giou.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
