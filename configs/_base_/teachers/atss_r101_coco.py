# ATSS with ResNet-101, trained for 12 epochs: 41.5 box AP.
teacher = dict(
    config='mmdet::atss/atss_r101_fpn_1x_coco.py',
    checkpoint='https://download.openmmlab.com/mmdetection/v2.0/atss/'
    'atss_r101_fpn_1x_coco/'
    'atss_r101_fpn_1x_20200825-dfcadd6f.pth',
)
