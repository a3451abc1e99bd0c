# RetinaNet with ResNet-50, trained for 36 epochs at several scales: 39.5 box
# AP.
teacher = dict(
    config='mmdet::retinanet/retinanet_r50_fpn_ms-640-800-3x_coco.py',
    checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
    'retinanet_r50_fpn_mstrain_3x_coco/'
    'retinanet_r50_fpn_mstrain_3x_coco_20210718_220633-88476508.pth',
)
