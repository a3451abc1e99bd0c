"""Every kind of dense head that MMDetection ships, small enough for a CPU."""

import contextlib
import copy
from unittest import mock

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

CLASSES = ('cat', 'dog', 'bird')
# Those that are in use most.
COMMON = {
    'retinanet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'gfl': 'gfl/gfl_r50_fpn_1x_coco.py',
    'atss': 'atss/atss_r50_fpn_1x_coco.py',
    'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'rtmdet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'yolox': 'yolox/yolox_tiny_8xb8-300e_coco.py',
}
OTHERS = {
    'autoassign': 'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
    'boxinst': 'boxinst/boxinst_r50_fpn_ms-90k_coco.py',
    'centernet': 'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'centernet_update': 'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco'
    '.py',
    'centripetalnet': 'centripetalnet/'
    'centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco.py',
    'condinst': 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'cornernet': 'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
    'ddod': 'ddod/ddod_r50_fpn_1x_coco.py',
    'decoupled_solo': 'solo/decoupled-solo_r50_fpn_1x_coco.py',
    'decoupled_solo_light': 'solo/decoupled-solo-light_r50_fpn_3x_coco.py',
    'dyhead': 'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'foveabox': 'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    'free_anchor': 'free_anchor/freeanchor_r50_fpn_1x_coco.py',
    'fsaf': 'fsaf/fsaf_r50_fpn_1x_coco.py',
    'ga_retinanet': 'guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py',
    'ghm': 'ghm/retinanet_r50_fpn_ghm-1x_coco.py',
    'nas_fcos': 'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco'
    '.py',
    'nas_fpn': 'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py',
    'paa': 'paa/paa_r50_fpn_1x_coco.py',
    'pisa_retinanet': 'pisa/retinanet-r50_fpn_pisa_1x_coco.py',
    'pisa_ssd': 'pisa/ssd300_pisa_coco.py',
    'reppoints_grid': 'reppoints/'
    'reppoints-bbox_r50_fpn-gn_head-gn-grid_1x_coco.py',
    'reppoints_moment': 'reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'rtmdet_ins': 'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    'sabl_retinanet': 'sabl/sabl-retinanet_r50_fpn_1x_coco.py',
    'solo': 'solo/solo_r50_fpn_1x_coco.py',
    'solov2': 'solov2/solov2_r50_fpn_1x_coco.py',
    'ssd': 'ssd/ssd300_coco.py',
    'ssdlite': 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'tood': 'tood/tood_r50_fpn_1x_coco.py',
    'tood_anchors': 'tood/tood_r50_fpn_anchor-based_1x_coco.py',
    'vfnet': 'vfnet/vfnet_r50_fpn_1x_coco.py',
    'yolact': 'yolact/yolact_r50_1xb8-55e_coco.py',
    'yolof': 'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'yolov3': 'yolo/yolov3_d53_8xb8-320-273e_coco.py',
    'yolov3_mobilenet': 'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
}
FAMILIES = {**COMMON, **OTHERS}
# Images of these need another size than 128, or one size for all.
SIZES = dict(ssd=300, pisa_ssd=300, ssdlite=320, ddod=512)
WITH_MASKS = (
    'boxinst',
    'condinst',
    'decoupled_solo',
    'decoupled_solo_light',
    'rtmdet_ins',
    'solo',
    'solov2',
    'yolact',
)
ONE_SIZE = ('pisa_ssd', 'rtmdet_ins', 'ssd', 'ssdlite', 'yolact')

WIDTHS = (
    'in_channels',
    'out_channels',
    'feat_channels',
    'point_feat_channels',
    'mask_feat_channels',
)
# ResNet-50's stages, and those of the small one.
STAGES = {256: 8, 512: 16, 1024: 32, 2048: 64}


def dense_config(family: str) -> ConfigDict:
    """The model of a family with 3 classes and few channels."""
    text = f"_base_ = 'mmdet::{FAMILIES[family]}'"
    model = Config.fromstring(text, '.py').model
    _everywhere(model)
    if str(model.backbone.type) == 'ResNet':
        _small_resnet(model)
    if str(model.backbone.type) == 'CSPDarknet':
        _small_darknet(model)
    if str(model.backbone.type) == 'CSPNeXt':
        _small_cspnext(model)
    # Images of one batch would be resized at random.
    model.data_preprocessor.pop('batch_augments', None)
    return model


def _everywhere(part: object) -> None:
    """No weights from the net, three classes, no memory for time."""
    values = part if isinstance(part, list) else part.values()
    for value in list(values):
        if isinstance(value, (dict, list)):
            _everywhere(value)
    if isinstance(part, dict):
        if str(part.get('init_cfg', {})).find('Pretrained') >= 0:
            part['init_cfg'] = None
        if part.get('num_classes'):
            part['num_classes'] = len(CLASSES)
        part.pop('with_cp', None)
        # torch refuses a BatchNorm without eps.
        if part.get('type') in ('BN', 'SyncBN'):
            part.update(type='BN', eps=part.get('eps') or 1e-5)


def _small_resnet(model: ConfigDict) -> None:
    basic = model.backbone.depth < 50
    model.backbone.update(depth=18, base_channels=8, frozen_stages=-1)
    for key in ('dcn', 'stage_with_dcn'):
        model.backbone.pop(key, None)
    necks = model.neck if isinstance(model.neck, list) else [model.neck]
    for neck in necks[1:]:
        _narrow(neck)
    channels = necks[0].in_channels
    if isinstance(channels, list):
        necks[0].in_channels = [STAGES[each] for each in channels]
        if necks[0].out_channels == 256:
            necks[0].out_channels = 32
    else:
        necks[0].in_channels = 64
        if not basic:
            necks[0].update(out_channels=32, block_mid_channels=16)
    if model.neck is necks[0] and necks[0].type == 'CTResNetNeck':
        necks[0].update(num_deconv_filters=(32, 16, 16), use_dcn=False)
        model.bbox_head.update(in_channels=16, feat_channels=16)
    for name in ('bbox_head', 'mask_head', 'segm_head'):
        if model.get(name):
            _narrow(model[name])


def _narrow(part: object) -> None:
    values = part if isinstance(part, list) else part.values()
    for value in list(values):
        if isinstance(value, (dict, list)):
            _narrow(value)
    if isinstance(part, dict):
        for name in WIDTHS:
            if part.get(name) in (256, 512):
                part[name] = 32


def _small_darknet(model: ConfigDict) -> None:
    model.backbone.update(deepen_factor=0.1, widen_factor=0.125)
    model.neck.update(in_channels=[32, 64, 128], out_channels=32)
    model.neck.num_csp_blocks = 1
    model.bbox_head.update(in_channels=32, feat_channels=32)


def _small_cspnext(model: ConfigDict) -> None:
    model.backbone.update(deepen_factor=0.1, widen_factor=0.125)
    model.neck.update(in_channels=[32, 64, 128], out_channels=32)
    model.neck.num_csp_blocks = 1
    model.bbox_head.update(in_channels=32, feat_channels=32)


def distilled(
    family: str, losses: object, teacher: str | None = None, **changes
) -> dict:
    """The config of a distilled detector, its teacher of random weights."""
    return dict(
        type='mmrkkd.KDDetector',
        student=dense_config(family),
        teacher=dict(
            config=dense_config(teacher or family),
            allow_random_weights=True,
            classes=CLASSES,
        ),
        losses=losses,
        class_names=CLASSES,
        **changes,
    )


def batch(family: str = '', seed: int = 0) -> dict:
    """Two images of noise with three objects each, unprocessed."""
    size = SIZES.get(family, 128)
    widths = (size, size if family in ONE_SIZE else size - 16)
    generator = torch.Generator().manual_seed(seed)
    items = [_image(size, width, generator) for width in widths]
    if family not in WITH_MASKS:
        for _, sample in items:
            del sample.gt_instances.masks
    return dict(
        inputs=[image for image, _ in items],
        data_samples=[sample for _, sample in items],
    )


def _image(
    height: int, width: int, generator: torch.Generator
) -> tuple[torch.Tensor, DetDataSample]:
    image = torch.randint(
        256, (3, height, width), dtype=torch.uint8, generator=generator
    )
    corners = torch.tensor([[8.0, 8], [40, 16], [16, 48]])
    sizes = torch.tensor([[24.0, 20], [64, 56], [40, 72]])
    boxes = torch.cat([corners, corners + sizes], 1)
    masks = torch.zeros(3, height, width)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int()):
        mask[y1:y2, x1:x2] = 1
    shape = (height, width)
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=boxes,
            labels=torch.arange(3),
            masks=BitmapMasks(masks.byte().numpy(), height, width),
        ),
        ignored_instances=InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
        ),
        metainfo=dict(
            img_shape=shape,
            ori_shape=shape,
            pad_shape=shape,
            batch_input_shape=shape,
            scale_factor=(1.0, 1.0),
            border=(0, height, 0, width),
            img_id=0,
        ),
    )
    return image, sample


def copied(data: dict) -> dict:
    """The same batch again: models write into theirs."""
    return copy.deepcopy(data)


@contextlib.contextmanager
def halved_heads(model):
    """bfloat16 by autocast behind the backbones.

    Emulated, as many CPUs have it, a backbone's convolutions take minutes.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast('cpu', dtype=torch.bfloat16))
        for each in (model.student, model.teacher.model):
            part = each.backbone
            whole = torch.autocast('cpu', enabled=False)(part.forward)
            stack.enter_context(mock.patch.object(part, 'forward', whole))
        yield
