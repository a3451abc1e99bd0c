# CrossKD's classification term + Kendall's tau, both of the crossed scores.
_base_ = './rkkd_gfl_lite2-mv2_fpn_12e_photos.py'

model = dict(matching=dict(type='grid', cross_layer='cls_convs.0.activate'))
