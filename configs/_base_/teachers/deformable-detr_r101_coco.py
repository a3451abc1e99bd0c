# Deformable DETR with ResNet-101: train it first, by the config below.
teacher = dict(
    config='{{ fileDirname }}/../../detection/deformable_detr/'
    'deformable-detr_r101_16xb2-50e_coco.py',
    checkpoint='checkpoints/coco/deformable-detr_r101.pth',
)
