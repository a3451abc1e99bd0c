# CrossKD: the features that the student pools in its boxes go through the
# teacher's box head. Temperature and weight are those of KL here.
_base_ = './kd_faster-rcnn_lite2-lite0-s5_fpn_12e_photos.py'

model = dict(matching=dict(type='rois', cross_layer='shared_fcs.0'))
