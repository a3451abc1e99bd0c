# CrossKD: the student's features go through the rest of the teacher's head, to
# class scores and to boxes.
# Its term of the centerness is not here.
_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../../_base_/teachers/atss_r101_coco.py',
    '../../_base_/methods/dense_crosskd_giou.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
