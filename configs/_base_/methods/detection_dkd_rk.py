# DKD with Kendall's tau beside it, gamma = alpha. No paper has its weights.
_base_ = './detection_dkd.py'

distillation = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.RankKDLoss',
        kd=_base_.distillation.losses,
        kd_weight=1.0,
        rank_weight=1.0,
        steepness=1.0,
    )
)
