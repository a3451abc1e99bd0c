# KL + Kendall's tau on each of the three stages, under the stage's weight.
_base_ = [
    'cascade-rcnn_mv2_fpn_180k_coco.py',
    '../../_base_/methods/detection_rkkd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=dict(
        # 41.0 box AP.
        config='mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_20e_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
        'cascade_rcnn/cascade_rcnn_r50_fpn_20e_coco/'
        'cascade_rcnn_r50_fpn_20e_coco_bbox_mAP-0.41_20200504_175131-e9872a90'
        '.pth',
    ),
    **_base_.distillation,
)
