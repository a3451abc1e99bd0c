# GFL with EfficientNet-Lite2, where its own config trains it.
teacher = dict(
    config='{{ fileDirname }}/../../detection/photos/'
    'gfl_lite2_fpn_12e_photos.py',
    checkpoint='work_dirs/gfl_lite2_fpn_12e_photos/epoch_12.pth',
)
