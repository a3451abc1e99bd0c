# DINO with ResNet-101: train it first, by the config below.
teacher = dict(
    config='{{ fileDirname }}/../../detection/dino/'
    'dino-4scale_r101_8xb2-12e_coco.py',
    checkpoint='checkpoints/coco/dino-4scale_r101.pth',
)
