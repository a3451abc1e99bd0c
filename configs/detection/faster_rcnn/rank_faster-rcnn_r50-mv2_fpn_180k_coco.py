# Ranking only.
_base_ = 'rkkd_faster-rcnn_r50-mv2_fpn_180k_coco.py'

model = dict(
    losses=dict(
        _delete_=True,
        type='mmrkkd.KendallLoss',
        rank_weight=1.0,
        steepness=1.0,
    )
)
