# Mask2Former with ResNet-101: 46.7 box AP, 44.0 mask AP.
teacher = dict(
    config='mmdet::mask2former/mask2former_r101_8xb2-lsj-50e_coco.py',
    checkpoint='https://download.openmmlab.com/mmdetection/v3.0/mask2former/'
    'mask2former_r101_8xb2-lsj-50e_coco/'
    'mask2former_r101_8xb2-lsj-50e_coco_20220426_100250-ecf181e2.pth',
)
