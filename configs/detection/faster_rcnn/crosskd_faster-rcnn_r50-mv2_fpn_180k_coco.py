# CrossKD for two-stage detectors: the features that the student pools in its
# boxes go through the teacher's box head. Temperature and weight are those of
# the authors' code for Faster R-CNN, whose terms of boxes are not here. No
# number of this pair is known.
_base_ = [
    'faster-rcnn_mv2_fpn_180k_coco.py',
    '../../_base_/teachers/faster-rcnn_r50_coco.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    matching=dict(type='rois', cross_layer='shared_fcs.0'),
    losses=dict(type='mmrkkd.KDLoss', temperature=3.0, loss_weight=0.5),
)
