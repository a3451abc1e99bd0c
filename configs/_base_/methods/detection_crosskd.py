# CrossKD for two-stage detectors: the features that the student pools in its
# boxes go through the teacher's box head. Temperature and weight are those of
# the authors' code for Faster R-CNN, whose terms of boxes are not here.
distillation = dict(
    losses=dict(type='mmrkkd.KDLoss', temperature=3.0, loss_weight=0.5),
    matching=dict(type='rois', cross_layer='shared_fcs.0'),
    task_weight=1.0,
)
