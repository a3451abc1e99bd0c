# A caffe-style teacher (BGR, no division by the standard deviation): its
# input is made from the student's. 39.9 box AP.
_base_ = 'rkkd_faster-rcnn_r50-mv2_fpn_180k_coco.py'

model = dict(
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r50-caffe_fpn_ms-3x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
        'faster_rcnn/faster_rcnn_r50_caffe_fpn_mstrain_3x_coco/'
        'faster_rcnn_r50_caffe_fpn_mstrain_3x_coco_20210526_095054-1f77628b'
        '.pth',
    )
)
