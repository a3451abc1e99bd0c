"""Every kind of query head that MMDetection ships, small enough for a CPU."""

from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from small_dense_heads import CLASSES, batch

# Those that have something of their own.
COMMON = {
    'detr': 'detr/detr_r50_8xb2-150e_coco.py',
    'deformable': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mask2former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
}
OTHERS = {
    'conditional': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'dab': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'ddq': 'ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
    'deformable_refine': 'deformable_detr/'
    'deformable-detr-refine_r50_16xb2-50e_coco.py',
    'deformable_two_stage': 'deformable_detr/'
    'deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
    'mask2former_panoptic': 'mask2former/'
    'mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    'maskformer': 'maskformer/maskformer_r50_ms-16xb1-75e_coco.py',
}
SPARSE = {
    'sparse_rcnn': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'queryinst': 'queryinst/queryinst_r50_fpn_1x_coco.py',
}
FAMILIES = {**COMMON, **OTHERS, **SPARSE}
PANOPTIC = ('mask2former_panoptic', 'maskformer')
STUFF = ('sky',)
# Their code has the width of embeddings fixed.
WIDE = ('conditional', 'deformable_two_stage')
# Of the published configs, and of the small ones.
SIZES = {
    80: 3,
    133: 4,
    53: 1,
    # Queries.
    900: 24,
    300: 24,
    100: 20,
    # Channels: of embeddings, of their positions, of what is inside.
    256: 32,
    128: 16,
    64: 16,
    2048: 48,
    1024: 48,
}
NAMES = (
    'num_classes',
    'num_things_classes',
    'num_stuff_classes',
    'num_queries',
    'num_proposals',
    'num_dn_queries',
    'embed_dims',
    'num_feats',
    'feedforward_channels',
    'proposal_feature_channel',
    'in_channels',
    'out_channels',
    'feat_channels',
    'conv_out_channels',
    'max_per_img',
    'max_per_image',
)
STAGES = {256: 8, 512: 16, 1024: 32, 2048: 64}


def query_config(family: str, wide: bool = False) -> ConfigDict:
    """The model of a family with 3 classes, 2 layers and few channels.

    Args:
        family: Of FAMILIES.
        wide: Keep the 256 channels of the embeddings. Defaults to False.
    """
    text = f"_base_ = 'mmdet::{FAMILIES[family]}'"
    model = Config.fromstring(text, '.py').model
    wide = wide or family in WIDE
    sizes = {**SIZES, 256: 256, 128: 128} if wide else SIZES
    _everywhere(model, sizes)
    model.backbone.update(depth=18, base_channels=8, frozen_stages=-1)
    # The stages of the backbone are other channels than those of the rest.
    for part in (model.get('neck'), model.get('panoptic_head')):
        if part is not None:
            part.in_channels = [STAGES[each] for each in part.in_channels]
    if 'panoptic_head' in model:
        classes = len(classes_of(family))
        model.panoptic_head.loss_cls.class_weight = [1.0] * classes + [0.1]
    elif 'bbox_head' in model and not wide:
        model.bbox_head.embed_dims = 32
    if family in SPARSE:
        _two_stages(model)
    model.data_preprocessor.pop('batch_augments', None)
    return model


def _everywhere(part: object, sizes: dict[int, int]) -> None:
    values = part if isinstance(part, list) else part.values()
    for value in list(values):
        if isinstance(value, (dict, list)):
            _everywhere(value, sizes)
    if not isinstance(part, dict):
        return
    for name in NAMES:
        if isinstance(part.get(name), int):
            part[name] = sizes.get(part[name], part[name])
    if str(part.get('init_cfg', {})).find('Pretrained') >= 0:
        part['init_cfg'] = None
    if part.get('num_layers', 0) > 2:
        part['num_layers'] = 2
    if part.get('type') == 'GN':
        part['num_groups'] = 4
    if 'num_points' in part and part['num_points'] > 1000:
        part['num_points'] = 100


def _two_stages(model: ConfigDict) -> None:
    head, train = model.roi_head, model.train_cfg
    head.update(num_stages=2, stage_loss_weights=[1, 0.5])
    head.bbox_head = head.bbox_head[:2]
    if 'mask_head' in head:
        head.mask_head = head.mask_head[:2]
    train.rcnn = train.rcnn[:2]


def classes_of(family: str) -> tuple[str, ...]:
    """The names of the family's classes."""
    return CLASSES + STUFF if family in PANOPTIC else CLASSES


def query_distilled(
    family: str, losses: object, teacher: str | None = None, **changes
) -> dict:
    """The config of a distilled detector, its teacher of random weights."""
    names = classes_of(family)
    return dict(
        type='mmrkkd.KDDetector',
        student=query_config(family),
        teacher=dict(
            config=query_config(teacher or family),
            allow_random_weights=True,
            classes=names,
        ),
        losses=losses,
        class_names=names,
        **changes,
    )


def query_batch(family: str, seed: int = 0) -> dict:
    """Two images of noise with what the family learns from."""
    data = batch('boxinst', seed)
    for image, sample in zip(
        data['inputs'], data['data_samples'], strict=True
    ):
        if family in PANOPTIC:
            things = sample.gt_instances.masks.masks
            semantic = image.new_full((1, *image.shape[1:]), len(CLASSES))
            for label, mask in enumerate(things):
                semantic[0][mask.astype(bool)] = label
            sample.gt_sem_seg = PixelData(sem_seg=semantic)
        elif 'mask' not in family and family != 'queryinst':
            del sample.gt_instances.masks
    return data
