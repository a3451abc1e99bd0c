# KL + Kendall's tau on the box classifier of Mask R-CNN.
_base_ = [
    'mask-rcnn_mv2_fpn_180k_coco.py',
    '../../_base_/methods/detection_rkkd.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=dict(
        # 40.9 box AP, 37.1 mask AP.
        config='mmdet::mask_rcnn/mask-rcnn_r50_fpn_ms-poly-3x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
        'mask_rcnn/mask_rcnn_r50_fpn_mstrain-poly_3x_coco/'
        'mask_rcnn_r50_fpn_mstrain-poly_3x_coco_20210524_201154-21b550bb'
        '.pth',
    ),
    **_base_.distillation,
)
