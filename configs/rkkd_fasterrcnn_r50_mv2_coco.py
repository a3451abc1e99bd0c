# The main job under its short name.
_base_ = 'detection/faster_rcnn/rkkd_faster-rcnn_r50-mv2_fpn_180k_coco.py'
