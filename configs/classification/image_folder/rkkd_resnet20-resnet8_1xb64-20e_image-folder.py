# KL + Kendall's tau, k = 1, gamma = alpha = 0.9.
_base_ = './kd_resnet20-resnet8_1xb64-20e_image-folder.py'

model = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.RankKDLoss',
        temperature=4.0,
        kd_weight=0.9,
        rank_weight=0.9,
        min_std=0,
    )
)
