# CrossKD's classification term and RK, both of the crossed scores. No paper
# has this pair: k = 1 and weights of 1 are ours.
_base_ = './dense_rkkd.py'

distillation = dict(
    matching=dict(type='grid', cross_layer='auto'),
)
