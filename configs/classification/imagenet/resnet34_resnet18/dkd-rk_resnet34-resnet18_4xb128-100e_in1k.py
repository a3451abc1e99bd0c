# DKD + RK: gamma = DKD's alpha.
_base_ = './dkd_resnet34-resnet18_4xb128-100e_in1k.py'

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
