# CTKD + RK: gamma = CTKD's weight.
_base_ = './ctkd_resnet50-mobilenetv1_4xb128-100e_in1k.py'

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
