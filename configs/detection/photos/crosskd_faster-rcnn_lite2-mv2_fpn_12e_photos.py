# CrossKD: the features that the student pools in its boxes go through the
# teacher's box head. Temperature and weight are those of KL here.
_base_ = [
    'faster-rcnn_mv2_fpn_12e_photos.py',
    '../../_base_/teachers/faster-rcnn_lite2_photos.py',
    '../../_base_/methods/detection_kd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    matching=dict(type='rois', cross_layer='shared_fcs.0'),
    **_base_.distillation,
    gradient_interval=50,
)
