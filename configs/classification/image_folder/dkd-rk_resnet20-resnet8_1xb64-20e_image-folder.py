# DKD + Kendall's tau, gamma = DKD's alpha = 1; no warm-up of the ranking.
_base_ = './dkd_resnet20-resnet8_1xb64-20e_image-folder.py'

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
