"""Every kind of RoI head that MMDetection ships, small enough for a CPU."""

import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.runner import set_random_seed

# One config of each RoI head, box head, sampler or loss of its own kind.
FAMILIES = {
    'c4': 'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
    'cascade_mask': 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'double_head': 'double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py',
    'dynamic': 'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
    'generic_extractor': 'groie/faste-rcnn_r50_fpn_groie_1x_coco.py',
    'grid': 'grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco.py',
    'htc': 'htc/htc_r50_fpn_1x_coco.py',
    'htc_plain': 'htc/htc-without-semantic_r50_fpn_1x_coco.py',
    'libra': 'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py',
    'mask_scoring': 'ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py',
    'ohem': 'faster_rcnn/faster-rcnn_r50_fpn_ohem_1x_coco.py',
    'panoptic': 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    'pisa': 'pisa/mask-rcnn_r50_fpn_pisa_1x_coco.py',
    'point_rend': 'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'sabl': 'sabl/sabl-faster-rcnn_r50_fpn_1x_coco.py',
    'sabl_cascade': 'sabl/sabl-cascade-rcnn_r50_fpn_1x_coco.py',
    'scnet': 'scnet/scnet_r50_fpn_1x_coco.py',
    'seesaw': 'seesaw_loss/'
    'mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py',
    'trident': 'tridentnet/tridentnet_r50-caffe_1x_coco.py',
    'v3det': 'v3det/faster_rcnn_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py',
}
WIDTHS = (
    'in_channels',
    'out_channels',
    'feat_channels',
    'conv_out_channels',
    'out_conv_channels',
    'point_feat_channels',
    'inner_channels',
    'cls_in_channels',
    'cls_out_channels',
    'reg_in_channels',
    'reg_offset_out_channels',
    'reg_cls_out_channels',
)


def roi_config(family: str) -> ConfigDict:
    """The model of a family with a ResNet-18 and 3 classes."""
    text = f"_base_ = 'mmdet::{FAMILIES[family]}'"
    model = Config.fromstring(text, '.py').model
    if family in ('c4', 'trident'):
        _without_pyramid(model)
    else:
        _narrow(model)
        model.backbone.update(depth=18, base_channels=8)
        necks = model.neck if isinstance(model.neck, list) else [model.neck]
        necks[0].in_channels = [8, 16, 32, 64]
    _everywhere(model)
    model.backbone.update(frozen_stages=-1)
    _few_boxes(model)
    return model


def _narrow(part: object) -> None:
    """Pyramids of 16 channels and fully connected layers of 32."""
    for value in part if isinstance(part, list) else part.values():
        if isinstance(value, (dict, list)):
            _narrow(value)
    if not isinstance(part, dict):
        return
    for name in WIDTHS:
        if part.get(name) in (256, 1024):
            part[name] = 32 if part[name] == 1024 else 16
    if 'fc_out_channels' in part:
        part['fc_out_channels'] = 32
    if part.get('type') == 'GN':
        part['num_groups'] = 4


def _without_pyramid(model: ConfigDict) -> None:
    model.rpn_head.update(in_channels=256, feat_channels=16)
    if model.backbone.type == 'TridentResNet':
        # It knows bottlenecks only; a shared head has its full width.
        model.backbone.update(base_channels=16)
        model.roi_head.shared_head = None
        model.roi_head.bbox_roi_extractor.roi_layer.output_size = 7
    else:
        # The shared head is the last stage of a full ResNet.
        model.backbone.depth = model.roi_head.shared_head.depth = 18
    model.roi_head.bbox_roi_extractor.out_channels = 256
    model.roi_head.bbox_head.in_channels = (
        512 if model.roi_head.shared_head else 256
    )


def _everywhere(part: object) -> None:
    for value in part if isinstance(part, list) else part.values():
        if isinstance(value, (dict, list)):
            _everywhere(value)
    if not isinstance(part, dict):
        return
    if part.get('num_classes') in (80, 1203, 13204):
        part['num_classes'] = 3
    if 'init_cfg' in part:
        part['init_cfg'] = None


def _few_boxes(model: ConfigDict) -> None:
    train, test = model.train_cfg, model.test_cfg
    train.rpn_proposal.update(nms_pre=100, max_per_img=50)
    test.rpn.update(nms_pre=100, max_per_img=50)
    stages = train.rcnn if isinstance(train.rcnn, list) else [train.rcnn]
    for stage in stages:
        stage.sampler.num = 32


def roi_detector(family: str, seed: int = 0) -> torch.nn.Module:
    """The built model; heads start with logits that tell boxes apart."""
    torch.manual_seed(seed)
    model = MODELS.build(roi_config(family))
    for name, weight in model.named_parameters():
        # TridentNet's convolutions start with whatever lay in the memory.
        is_trident = family == 'trident' and 'conv2' in name
        if weight.dim() > 1 and (is_trident or name.startswith('roi_head')):
            torch.nn.init.normal_(weight, std=0.05)
    return model


def roi_batch(size: int = 96) -> dict:
    """Two images with boxes, masks and a semantic map."""
    set_random_seed(0)
    return demo_mm_inputs(
        2,
        [[3, size, size + 32]] * 2,
        num_items=[3, 2],
        num_classes=3,
        with_mask=True,
        with_semantic=True,
    )
