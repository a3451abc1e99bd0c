# Sparse R-CNN with ResNet-101, 36 epochs at several scales: 44.2 box AP.
teacher = dict(
    config='mmdet::sparse_rcnn/sparse-rcnn_r101_fpn_ms-480-800-3x_coco.py',
    checkpoint='https://download.openmmlab.com/mmdetection/v2.0/sparse_rcnn/'
    'sparse_rcnn_r101_fpn_mstrain_480-800_3x_coco/'
    'sparse_rcnn_r101_fpn_mstrain_480-800_3x_coco_20201223_121552-6c46c9d6'
    '.pth',
)
