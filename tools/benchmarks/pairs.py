"""Teachers and students whose training steps are measured."""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from mmrkkd.commands.methods import Method, read_method
from mmrkkd.distillers.teacher import read_teacher_config
from mmrkkd.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Images of a batch, and their height and width.
Size = tuple[int, int, int]
SOFTMAX = dict(type='mmrkkd.KDLoss', temperature=1.0)
SIGMOID = dict(type='mmrkkd.BinaryKDLoss')


@dataclass(frozen=True)
class Pair:
    """A distillation config, and what is fed to it.

    Args:
        title: What the table calls it.
        scope: 'mmdet' or 'mmpretrain'.
        config: Path in ``configs``.
        scores: Where the layer that puts out the class scores stands, in
            teacher and student.
        kd: The cheapest loss between two models' scores.
        on_cpu: Batch on a CPU.
        on_gpu: Batch on a GPU.
    """

    title: str
    scope: str
    config: str
    scores: str
    kd: dict
    on_cpu: Size
    on_gpu: Size

    def size(self, device: str, quick: bool = False) -> Size:
        """The batch for a device; quick, the smallest that works."""
        if quick:
            return 1, *(min(64, side) for side in self.on_cpu[1:])
        return self.on_gpu if device == 'cuda' else self.on_cpu


PAIRS = {
    'faster_rcnn': Pair(
        'Faster R-CNN, ResNet-50 -> MobileNetV2',
        'mmdet',
        'detection/faster_rcnn/rkkd_faster-rcnn_r50-mv2_fpn_180k_coco.py',
        'roi_head.bbox_head.fc_cls',
        SOFTMAX,
        (2, 320, 320),
        (4, 800, 1344),
    ),
    'gfl': Pair(
        'GFL, ResNet-50 -> MobileNetV2',
        'mmdet',
        'detection/gfl/rkkd_gfl_r50-mv2_fpn_1x_coco.py',
        'bbox_head.gfl_cls',
        SIGMOID,
        (2, 320, 320),
        (4, 800, 1344),
    ),
    'retinanet': Pair(
        'RetinaNet, ResNet-50 -> MobileNetV2',
        'mmdet',
        'detection/retinanet/rkkd_retinanet_r50-mv2_fpn_1x_coco.py',
        'bbox_head.retina_cls',
        SIGMOID,
        (2, 320, 320),
        (4, 800, 1344),
    ),
    'cifar': Pair(
        'CIFAR, ResNet-32x4 -> ResNet-8x4',
        'mmpretrain',
        'classification/cifar100/resnet32x4_resnet8x4/'
        'rkkd_resnet32x4-resnet8x4_1xb64-240e_cifar100.py',
        'head.fc',
        SOFTMAX,
        (64, 32, 32),
        (64, 32, 32),
    ),
}


def model_config(config: str | Path, scope: str) -> ConfigDict:
    """A distiller's config that needs no checkpoint.

    Args:
        config: Path of the config.
        scope: 'mmdet' or 'mmpretrain'.
    """
    return copy.deepcopy(_read(str(config), scope))


@functools.cache
def _read(config: str, scope: str) -> ConfigDict:
    """Read once: MMEngine reads 400 files for a name such as mmdet::..."""
    whole = Config.fromfile(config)
    model, data = whole.model, whole.get('data_preprocessor')
    names = dict()
    if scope == 'mmdet':
        from mmdet.datasets import CocoDataset

        names['classes'] = CocoDataset.METAINFO['classes']
        model.class_names = names['classes']
    model.teacher.update(
        config=read_teacher_config(model.teacher.config),
        checkpoint=None,
        allow_random_weights=True,
        **names,
    )
    model.teacher.pop('sha256', None)
    model.student.backbone.pop('init_cfg', None)
    if data is not None:
        model.setdefault('data_preprocessor', data)
    return model


def build(
    pair: Pair,
    student: nn.Module | None = None,
    losses: dict | list | None = None,
    matching: dict | None = None,
    **teacher: object,
) -> nn.Module:
    """A distiller of a pair; the weights are random.

    Args:
        pair: The pair.
        student: A student that is there already. Defaults to a new one.
        losses: Instead of the config's.
        matching: Config of the reader, where not the student's usual one.
        teacher: More options of the teacher's.
    """
    config = model_config(CONFIGS / pair.config, pair.scope)
    config.teacher.update(teacher)
    if losses is not None:
        config.losses = copy.deepcopy(losses)
    if matching is not None:
        config.matching = matching
    if student is not None:
        config.student = student
    with DefaultScope.overwrite_default_scope(pair.scope):
        torch.manual_seed(0)
        model = MODELS.build(config)
        if student is None:
            model.student.init_weights()
    return model.train()


def method_of(pair: Pair, name: str) -> Method:
    """The settings that ``mmrkkd distill --method`` takes for a pair.

    Raises:
        ValueError: no such method goes with the pair; the message has those
            that do.
    """
    if pair.scope == 'mmpretrain':
        return read_method(name, 'classifier')
    from mmrkkd.commands.fitting import Detectors

    config = model_config(CONFIGS / pair.config, pair.scope)
    both = config.student, config.teacher.config.model
    return Detectors(
        *(Config(dict(model=each, default_scope=pair.scope)) for each in both)
    ).method(name)


def batch(pair: Pair, size: Size) -> dict:
    """Random images with their annotations, as a data loader gives them.

    Args:
        pair: The pair.
        size: Images, height and width.
    """
    images, *sides = size
    if pair.scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(images, [[3, *sides]] * images, num_classes=80)
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(
        256, (images, 3, *sides), dtype=torch.uint8, generator=generator
    )
    labels = torch.randint(100, (images,), generator=generator)
    return dict(
        inputs=list(inputs),
        data_samples=[DataSample().set_gt_label(label) for label in labels],
    )
