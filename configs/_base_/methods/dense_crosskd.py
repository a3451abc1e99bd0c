# CrossKD's classification term, for a tower of four convolutions: the last one
# and the scores are the teacher's. Of n it is 'cls_convs.<n - 2>.activate'.
# Its terms of boxes are in crosskd_ld (GFL) and crosskd_giou.
_base_ = './dense_kd.py'

distillation = dict(
    matching=dict(type='grid', cross_layer='cls_convs.2.activate'),
)
