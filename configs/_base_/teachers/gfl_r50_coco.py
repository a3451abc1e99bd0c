# GFL with ResNet-50, trained for 24 epochs at several scales: 42.9 box AP.
teacher = dict(
    config='mmdet::gfl/gfl_r50_fpn_ms-2x_coco.py',
    checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/'
    'gfl_r50_fpn_mstrain_2x_coco/'
    'gfl_r50_fpn_mstrain_2x_coco_20200629_213802-37bb1edc.pth',
)
