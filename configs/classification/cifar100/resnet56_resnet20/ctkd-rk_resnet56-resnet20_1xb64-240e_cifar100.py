# CTKD + RK: the ranking term has no temperature to learn.
_base_ = './ctkd_resnet56-resnet20_1xb64-240e_cifar100.py'

model = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.RankKDLoss',
        kd=_base_.model.losses,
        kd_weight=1.0,
        rank_weight=0.9,
        min_std=0,
    )
)
