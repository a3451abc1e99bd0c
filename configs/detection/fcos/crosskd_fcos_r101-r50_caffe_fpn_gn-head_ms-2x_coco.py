# CrossKD's classification term: the student's features go through the rest of
# the teacher's head. Its term of boxes is not here; and where it divides by
# the sum of the centerness targets, this does by the number of positives.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
    '../../_base_/teachers/fcos_r101_coco.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    matching=dict(type='grid', cross_layer='cls_convs.1.activate'),
    losses=dict(type='mmrkkd.BinaryKDLoss', loss_weight=0.4),
    task_weight=1.0,
)
