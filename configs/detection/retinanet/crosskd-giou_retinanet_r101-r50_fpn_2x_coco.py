# CrossKD: the student's features go through the rest of the teacher's head, to
# class scores and to boxes.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_2x_coco.py',
    '../../_base_/teachers/retinanet_r101_coco.py',
    '../../_base_/methods/dense_crosskd_giou.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    **_base_.distillation,
)
