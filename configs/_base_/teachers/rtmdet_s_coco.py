# RTMDet-s, trained for 300 epochs: 44.5 box AP.
teacher = dict(
    config='mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
    checkpoint='https://download.openmmlab.com/mmdetection/v3.0/rtmdet/'
    'rtmdet_s_8xb32-300e_coco/'
    'rtmdet_s_8xb32-300e_coco_20220905_161602-387a891e.pth',
)
