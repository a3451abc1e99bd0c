# KD of scores that a sigmoid decides, and RK. No paper has this pair: k = 1
# and weights of 1 are ours.
_base_ = './dense_kd.py'

distillation = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.RankKDLoss',
        kd=_base_.distillation.losses,
        kd_weight=1.0,
        rank_weight=1.0,
        steepness=1.0,
        form=1,
    )
)
