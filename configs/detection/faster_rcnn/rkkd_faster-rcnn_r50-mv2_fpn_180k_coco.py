# Ranking-enhanced distillation: KL + Kendall's tau, the student's sampled
# RoIs, 81 channels. The paper's table 5 has this pair, but not its weights:
# these are T = 1 and alpha = gamma = 1.
_base_ = 'faster-rcnn_mv2_fpn_180k_coco.py'

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=dict(
        # ResNet-50 FPN trained for 36 epochs: 40.3 box AP.
        config='mmdet::faster_rcnn/faster-rcnn_r50_fpn_ms-3x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
        'faster_rcnn/faster_rcnn_r50_fpn_mstrain_3x_coco/'
        'faster_rcnn_r50_fpn_mstrain_3x_coco_20210524_110822-e10bd31c.pth',
    ),
    losses=dict(
        type='mmrkkd.RankKDLoss',
        temperature=1.0,
        kd_weight=1.0,
        rank_weight=1.0,
        steepness=1.0,
        form=1,
    ),
    task_weight=1.0,
)
