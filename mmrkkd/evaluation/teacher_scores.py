"""What a teacher scores on held-out images, and whether that is of use."""

import contextlib
import copy
import io
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, EVALUATOR
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Subset
from tqdm import tqdm

from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.class_map import ClassMap
from mmrkkd.distillers.class_names import metainfo_classes
from mmrkkd.distillers.unused import whole

from .evenly import evenly
from .metric_units import deciding, scale_of
from .trial_steps import in_this_process

MIN_AP = 1.0
SIGMAS = 3
# Where MMDetection's metrics of COCO and LVIS keep the annotation file.
APIS = ('_coco_api', '_lvis_api')
RULE = (
    f'a detector below {MIN_AP:g} AP (of 100) or without a box, or a '
    f'classifier whose top-1 accuracy is within {SIGMAS} standard deviations '
    'of guessing, is useless'
)


class TeacherScores(NamedTuple):
    """What a teacher scores.

    Args:
        metrics: By the config's own evaluator.
        images: On how many images.
        names: The class names of the data, None where they state none.
        found: How many boxes it found in images that have objects, None
            where no boxes are looked for or images are loaded without
            their objects.
    """

    metrics: dict[str, float]
    images: int
    names: tuple[str, ...] | None
    found: int | None = None


def teacher_scores(
    model: LogitDistiller | nn.Module,
    config: Config,
    images: int,
    class_map: ClassMap | None = None,
    progress: bool = True,
) -> TeacherScores:
    """Evaluates a teacher by a config's own evaluator.

    A distiller's teacher sees what it sees in training: the student's
    images, through the bridge, and its classes in the student's order.

    Args:
        model: A distiller, or the teacher alone.
        config: With ``val_dataloader`` and ``val_evaluator``.
        images: How many, evenly spaced over the set; all if it has fewer.
        class_map: Of a distiller. Defaults to its own, if it has one.
        progress: Show a progress bar. Defaults to True.

    Raises:
        ValueError: the config validates nothing, or a detector on images
            without any object.
    """
    for name in ('val_dataloader', 'val_evaluator'):
        if not config.get(name):
            raise ValueError(
                f'the teacher is scored by the validation of a config, and '
                f'{config.filename or "this one"} has no {name}'
            )
    loader = in_this_process(config.val_dataloader)
    dataset = loader.dataset
    if isinstance(dataset, dict):
        dataset = DATASETS.build(dataset)
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    chosen = evenly(len(dataset), images)
    loader.dataset = Subset(dataset, chosen)
    evaluator = _evaluator(config, dataset, chosen)
    batches = tqdm(
        Runner.build_dataloader(loader),
        'teacher',
        disable=not progress,
    )
    found = []
    for batch, samples in teacher_predictions(model, batches, class_map):
        found += [
            len(sample.pred_instances)
            for sample in samples
            if 'pred_instances' in sample and sample.get('gt_instances')
        ]
        evaluator.process(data_samples=samples, data_batch=batch)
    names = metainfo_classes(
        'the class names of the validation set', dataset.metainfo
    )
    # COCO's tools print what they do; the progress is on the other stream.
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = evaluator.evaluate(len(chosen))
    value = judged(metrics)[1]
    # An AP above 0 has seen objects, by an annotation file of its own.
    if _objects(dataset, chosen) == 0 and (value is None or value <= 0):
        raise ValueError(
            f'the teacher cannot be scored: the {len(chosen)} validation '
            f'images have no object of the classes {names!r:.200}. Look at '
            'ann_file and metainfo.classes in val_dataloader, or take more '
            "images (--images; 'images' of CheckTeacherHook)"
        )
    return TeacherScores(
        metrics, len(chosen), names, sum(found) if found else None
    )


def _objects(dataset: object, chosen: list[int]) -> int | None:
    """How many objects images have; None where their data do not say."""
    if not hasattr(dataset, 'get_data_info'):
        return None
    stated = [dataset.get_data_info(i).get('instances') for i in chosen]
    return None if None in stated else sum(map(len, stated))


def useless(
    metrics: dict[str, float],
    images: int,
    classes: int,
    found: int | None = None,
) -> str | None:
    """Why a teacher is of no use, by :data:`RULE`.

    Args:
        metrics: What an evaluator gave: AP of boxes in [0, 1], top-1 and AP
            of images in percent.
        images: How many it saw.
        classes: How many there are.
        found: How many boxes, see :class:`TeacherScores`; of none at all
            MMDetection's metrics say nothing. Defaults to None, unknown.

    Returns:
        The reason; None if it is of use, or nothing tells: no metric does,
        or so few images that guessing may be right on all.
    """
    key, value = judged(metrics)
    if key is None and found == 0:
        return f'it finds no box at all in {images} images'
    if key is None or value < 0:
        # -1 is COCO's word for no objects at all.
        return None
    if math.isnan(value):
        return f'{key} is not a number'
    if key.endswith('top1'):
        chance = 1 / classes
        bound = chance + SIGMAS * math.sqrt(chance * (1 - chance) / images)
        if bound < 1 and value <= 100 * bound:
            return (
                f'{key} is {value:.1f} %, and guessing among {classes} classes'
                f' reaches {100 * bound:.1f} % on {images} images by luck'
            )
        return None
    value *= scale_of(key)
    if value < MIN_AP:
        return f'{key} is {value:.2f} of 100, below {MIN_AP:g}'
    return None


def judged(
    metrics: dict[str, float],
) -> tuple[str, float] | tuple[None, None]:
    """The metric that decides, and its value."""
    key = deciding(metrics)
    return (None, None) if key is None else (key, float(metrics[key]))


def _evaluator(
    config: Config, dataset: object, chosen: list[int]
) -> Evaluator:
    settings = copy.deepcopy(config.val_evaluator)
    # As MMEngine's runner reads it.
    if isinstance(settings, dict) and settings.get('metrics') is not None:
        settings.setdefault('type', 'Evaluator')
        evaluator = EVALUATOR.build(settings)
    else:
        evaluator = Evaluator(settings)
    evaluator.dataset_meta = dataset.metainfo
    for metric in evaluator.metrics:
        # Those that read an annotation file would count the images that
        # were left out as missed.
        if any(getattr(metric, api, None) is not None for api in APIS):
            metric.img_ids = [
                dataset.get_data_info(index)['img_id'] for index in chosen
            ]
    return evaluator


@torch.no_grad()
def teacher_predictions(
    model: nn.Module, batches: Iterable[dict], class_map: ClassMap | None
) -> Iterator[tuple[dict, list]]:
    """What a teacher predicts, in the student's classes.

    Args:
        model: A distiller, or the teacher alone.
        batches: As a data loader gives them.
        class_map: Of a distiller; None for its own, if it has one.

    Returns:
        Each batch with its data samples, which hold the predictions.
    """
    if not isinstance(model, LogitDistiller):
        for batch in batches:
            yield batch, model.val_step(batch)
        return
    class_map = class_map or model.class_map or ClassMap()
    teacher = model.teacher.model
    channels = model.reader.scores(model.student).channels
    for batch in batches:
        data = model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        # In training its boxes are not computed.
        with whole(teacher):
            samples = teacher(
                model.teacher_inputs(inputs, samples), samples, mode='predict'
            )
        for sample in samples:
            _in_students_classes(sample, class_map, channels)
        yield batch, samples


def _in_students_classes(
    sample: object, class_map: ClassMap, channels: int
) -> None:
    """Gives what a teacher predicts the student's class numbers.

    Args:
        sample: A data sample with predictions; changed in place.
        class_map: Which channels belong together.
        channels: The student's.
    """
    if class_map.student is None:
        return
    if 'pred_score' in sample:
        scores = sample.pred_score
        own = scores.new_zeros(channels)
        own[list(class_map.student)] = class_map.select_teacher(scores)
        sample.set_pred_score(own).set_pred_label(own.argmax(0))
        return
    found = sample.pred_instances
    numbers = dict(zip(class_map.teacher, class_map.student, strict=True))
    labels = [numbers.get(int(label), -1) for label in found.labels]
    found.labels = found.labels.new_tensor(labels)
    sample.pred_instances = found[found.labels >= 0]
