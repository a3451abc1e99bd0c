# MLKD + RK: gamma = 0.9 for each view, whose mean the ranking term is.
_base_ = './mlkd_wrn40-2-resnet8x4_1xb64-480e_cifar100.py'

model = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.RankKDLoss',
        kd=_base_.model.losses,
        kd_weight=1.0,
        rank_weight=1.8,
        min_std=0,
    )
)
