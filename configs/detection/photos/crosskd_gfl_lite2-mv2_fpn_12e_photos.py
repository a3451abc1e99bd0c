# CrossKD's classification term: the student's features go through the rest of
# the teacher's head.
_base_ = './kd_gfl_lite2-mv2_fpn_12e_photos.py'

model = dict(matching=dict(type='grid', cross_layer='cls_convs.0.activate'))
