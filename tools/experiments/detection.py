"""What a detector finds on each image: kept, and compared by bootstrap."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmrkkd.evaluation.resampled_ap import match_images

from .cells import Cell
from .summary import Bootstrap

PREDICTIONS = 'predictions.npz'
RESAMPLED = 'resampled.npz'
# The metric's own name for its file, then ours.
WRITTEN, PREFIX = 'predictions.bbox.json', 'predictions'
SAMPLES = 1000


def coco_metric(config: Config) -> dict | None:
    """The config of the validation's ``CocoMetric``; None without one."""
    evaluators = config.get('val_evaluator') or ()
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    for evaluator in evaluators:
        kind = evaluator.get('type', '')
        kind = getattr(kind, '__name__', kind).split('.')[-1]
        if kind == 'CocoMetric' and 'bbox' in evaluator.get('metric', 'bbox'):
            return evaluator
    return None


def keep_predictions(config: Config, folder: Path) -> None:
    """Has each validation write what was found, and AP class by class.

    Args:
        config: Changed in place; one without ``CocoMetric`` is left alone.
        folder: Where the file goes.
    """
    metric = coco_metric(config)
    if metric is not None:
        metric.update(outfile_prefix=str(folder / PREFIX), classwise=True)


def pack_predictions(folder: Path) -> None:
    """Replaces the last validation's JSON by a file a tenth as large."""
    written = folder / WRITTEN
    if not written.is_file():
        return
    found = json.loads(written.read_text())
    np.savez_compressed(
        folder / PREDICTIONS,
        image_id=np.array([f['image_id'] for f in found], np.int64),
        category_id=np.array([f['category_id'] for f in found], np.int32),
        bbox=np.array([f['bbox'] for f in found], np.float32).reshape(-1, 4),
        score=np.array([f['score'] for f in found], np.float32),
    )
    written.unlink()
    # Of an earlier training.
    (folder / RESAMPLED).unlink(missing_ok=True)


def bootstraps(
    cells: Iterable[Cell], samples: int = SAMPLES
) -> dict[tuple[str, int], Bootstrap]:
    """AP and AP50 of each cell on the same samples of the images.

    Args:
        cells: Finished ones; those without kept predictions are left out.
        samples: How many samples. Defaults to ``SAMPLES``.

    Returns:
        (label, seed) to its scores in percent.
    """
    return {
        (cell.method.label, cell.seed): _bootstrap(cell, samples)
        for cell in cells
        if (cell.folder / PREDICTIONS).is_file() and _ground_truth(cell)
    }


def copies_of_images(images: int, samples: int) -> np.ndarray:
    """(samples, images): how often each image is in each sample.

    The same for every cell, so that differences are paired.
    """
    random = np.random.default_rng(0)
    return random.multinomial(images, np.full(images, 1 / images), samples)


def _bootstrap(cell: Cell, samples: int) -> Bootstrap:
    path = cell.folder / RESAMPLED
    if path.is_file():
        with np.load(path) as kept:
            if len(kept['samples']) == samples:
                return Bootstrap(
                    kept['whole'], kept['samples'], kept['images']
                )
    with np.load(cell.folder / PREDICTIONS) as found:
        matches = match_images(
            _ground_truth(cell), found, _classes(cell.config)
        )
    copies = copies_of_images(matches.images, samples)
    made = Bootstrap(
        100 * np.array(matches.scores()),
        100 * np.array([matches.scores(sample) for sample in copies]),
        matches.images,
    )
    np.savez(path, whole=made.whole, samples=made.samples, images=made.images)
    return made


def _ground_truth(cell: Cell) -> str | None:
    """The annotation file, where it is one on this machine."""
    path = (coco_metric(cell.config) or {}).get('ann_file')
    return path if path and Path(path).is_file() else None


def _classes(config: Config) -> Sequence[str]:
    """The classes that the validation counts."""
    dataset = config.val_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    own = (dataset.get('metainfo') or {}).get('classes')
    if own is None:
        init_default_scope(config.get('default_scope', 'mmdet'))
        kind = dataset.type
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        own = kind.METAINFO['classes']
    return [own] if isinstance(own, str) else own
