# CrossKD: the student's features go through the rest of the teacher's head, to
# class scores and to boxes. Where it divides by the sum of the centerness
# targets, this does by the number of positives; where it has the IoU of the
# boxes, this has their GIoU.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
    '../../_base_/teachers/fcos_r101_coco.py',
]

model = dict(
    _delete_=True,
    type='mmrkkd.KDDetector',
    student=_base_.model,
    teacher=_base_.teacher,
    matching=dict(
        type='grid',
        cross_layer='cls_convs.1.activate',
        cross_box_layer='reg_convs.1.activate',
    ),
    losses=[
        dict(type='mmrkkd.BinaryKDLoss', loss_weight=0.4),
        dict(
            type='mmrkkd.BoxGIoULoss',
            difference=False,
            loss_weight=0.75,
            locations='confidence',
        ),
    ],
    task_weight=1.0,
)
