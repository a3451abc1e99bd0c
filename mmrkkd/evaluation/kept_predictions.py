"""What a detector found on each image, as a run keeps it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config

from mmrkkd.datasets import inner_datasets
from mmrkkd.datasets.check_data import dataset_class
from mmrkkd.registry import type_name

from .resampled_ap import Matches, match_images
from .summary import Bootstrap

PREDICTIONS = 'predictions.npz'
RESAMPLED = 'resampled.npz'
SAMPLES = 1000


def coco_metric(config: Config) -> dict | None:
    """The config of the validation's ``CocoMetric``; None without one."""
    evaluators = config.get('val_evaluator') or ()
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
    return path if path and Path(path).is_file() else None


def validated_classes(config: Config) -> Sequence[str]:
    """The classes that the validation counts."""
    dataset = next(inner_datasets(config.val_dataloader.dataset))
    own = (dataset.get('metainfo') or {}).get('classes')
    if own is None:
        kind = dataset_class(dataset, config.get('default_scope', 'mmdet'))
        own = kind.METAINFO['classes']
    return [own] if isinstance(own, str) else own


def matched(config: Config, folder: Path) -> Matches:
    """What the kept predictions of a run met.

    Args:
        config: Of the run; its ground truth is on this machine.
        folder: Of the run; there are kept predictions.
    """
    with np.load(folder / PREDICTIONS) as found:
        return match_images(
            ground_truth(config), found, validated_classes(config)
        )


def copies_of_images(images: int, samples: int) -> np.ndarray:
    """(samples, images): how often each image is in each sample.

    The same for every run, so that differences are paired.
    """
    random = np.random.default_rng(0)
    return random.multinomial(images, np.full(images, 1 / images), samples)


def kept_bootstrap(folder: Path, samples: int = SAMPLES) -> Bootstrap | None:
    """AP and AP50 of a run on samples of the images, if they are kept.

    Args:
        folder: Of the run.
        samples: How many samples. Defaults to ``SAMPLES``.
    """
    path = folder / RESAMPLED
    if path.is_file():
        with np.load(path) as kept:
            if len(kept['samples']) == samples:
                return Bootstrap(
                    kept['whole'], kept['samples'], kept['images']
                )
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
