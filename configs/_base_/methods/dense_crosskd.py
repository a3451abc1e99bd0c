# CrossKD's classification term: the last convolution of the tower and the
# scores are the teacher's, in FCOS the last two. Its term of boxes is in
# crosskd_ld (GFL) and crosskd_giou.
_base_ = './dense_kd.py'

distillation = dict(
    matching=dict(type='grid', cross_layer='auto'),
)
