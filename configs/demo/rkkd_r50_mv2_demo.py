# KL + Kendall's tau.
_base_ = './kd_r50_mv2_demo.py'

model = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.RankKDLoss',
        temperature=1.0,
        kd_weight=1.0,
        rank_weight=1.0,
        # Steeper than the default: see choices.yml.
        steepness=4.0,
        form=1,
    )
)
