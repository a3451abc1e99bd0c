# DKD + RK: gamma = DKD's alpha, no warm-up of the ranking term.
_base_ = './dkd_resnet32x4-wrn40-2_1xb64-240e_cifar100.py'

model = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.RankKDLoss',
        kd=_base_.model.losses,
        kd_weight=1.0,
        rank_weight=1.0,
        min_std=0,
    )
)
