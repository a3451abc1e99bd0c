"""What a detector found on each image, as a run keeps it."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from mmengine.config import Config

from mmrkkd.datasets import inner_datasets
from mmrkkd.datasets.check_data import dataset_class
from mmrkkd.registry import type_name

from .resampled_ap import Matches, match_images
from .summary import Bootstrap

PREDICTIONS = 'predictions.npz'
COLUMNS = ('image_id', 'category_id', 'bbox', 'score')
RESAMPLED = 'resampled.npz'
SAMPLES = 1000
# What is asked of an archive that is cut off, or of something else.
BROKEN = (BadZipFile, EOFError, KeyError, ValueError, zlib.error)


def coco_metric(config: Config) -> dict | None:
    """The config of the validation's ``CocoMetric``; None without one."""
    evaluators = config.get('val_evaluator') or ()
    if isinstance(evaluators, dict) and 'metrics' in evaluators:
        # dict(type='Evaluator', metrics=[...])
        evaluators = evaluators['metrics']
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    for evaluator in evaluators:
        if type_name(evaluator) == 'CocoMetric' and 'bbox' in evaluator.get(
            'metric', 'bbox'
        ):
            return evaluator
    return None


def ground_truth(config: Config) -> str | None:
    """The validation's annotation file, where it is one on this machine."""
    path = (coco_metric(config) or {}).get('ann_file')
    one = isinstance(path, (str, os.PathLike))
    return path if one and Path(path).is_file() else None


def validated_classes(config: Config) -> Sequence[str]:
    """The classes that the validation counts."""
    dataset = next(inner_datasets(config.val_dataloader.dataset))
    own = (dataset.get('metainfo') or {}).get('classes')
    if own is None:
        kind = dataset_class(dataset, config.get('default_scope', 'mmdet'))
        own = kind.METAINFO['classes']
    return [own] if isinstance(own, str) else own


def kept_detections(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The predictions that a run keeps.

    Args:
        path: The file.

    Returns:
        ``image_id`` (D, ), ``category_id`` (D, ), ``bbox`` (D, 4; left,
        top, width, height in pixels) and ``score`` (D, ).

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        # NumPy leaves a file open that is no archive.
        with open(path, 'rb') as file, np.load(file) as found:
            return {name: found[name] for name in COLUMNS}
    except BROKEN as error:
        raise ValueError(
            f'{path} cannot be read ({type(error).__name__}: {error}): a full '
            'disk or a kill leaves such a file. Put a copy in its place, or '
            'remove it, and the run is shown without its predictions'
        ) from error


def matched(config: Config, folder: Path) -> Matches:
    """What the kept predictions of a run met.

    Args:
        config: Of the run; its ground truth is on this machine.
        folder: Of the run; there are kept predictions.

    Raises:
        ValueError: these cannot be read, or belong to other annotations.
    """
    return match_images(
        ground_truth(config),
        kept_detections(folder / PREDICTIONS),
        validated_classes(config),
    )


def copies_of_images(images: int, samples: int) -> np.ndarray:
    """(samples, images): how often each image is in each sample.

    The same for every run, so that differences are paired.
    """
    random = np.random.default_rng(0)
    return random.multinomial(images, np.full(images, 1 / images), samples)


def kept_bootstrap(folder: Path, samples: int = SAMPLES) -> Bootstrap | None:
    """AP and AP50 of a run on samples of the images, if they are kept.

    A file that cannot be read is none.

    Args:
        folder: Of the run.
        samples: How many samples. Defaults to ``SAMPLES``.
    """
    try:
        with open(folder / RESAMPLED, 'rb') as file, np.load(file) as kept:
            if len(kept['samples']) == samples:
                return Bootstrap(
                    kept['whole'], kept['samples'], kept['images']
                )
    except (FileNotFoundError, *BROKEN):
        pass
    return None


def bootstrap(matches: Matches, samples: int = SAMPLES) -> Bootstrap:
    """AP and AP50 on samples of the images, in percent.

    Args:
        matches: See :func:`matched`.
        samples: How many samples. Defaults to ``SAMPLES``.
    """
    copies = copies_of_images(matches.images, samples)
    return Bootstrap(
        100 * np.array(matches.scores()),
        100 * np.array([matches.scores(sample) for sample in copies]),
        matches.images,
    )
