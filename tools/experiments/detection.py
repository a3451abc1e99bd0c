"""What a detector finds on each image: kept, and compared by bootstrap."""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mmengine.config import Config

from mmrkkd.checkpoint.atomic import write_atomically
from mmrkkd.checkpoint.fetch import file_sha256
from mmrkkd.evaluation.kept_predictions import (
    PREDICTIONS,
    RESAMPLED,
    SAMPLES,
    bootstrap,
    coco_metric,
    ground_truth,
    kept_bootstrap,
    matched,
)
from mmrkkd.evaluation.summary import Bootstrap

from . import ExperimentError
from .cells import Cell

# The metric's own name for its file, then ours.
WRITTEN, PREFIX = 'predictions.bbox.json', 'predictions'


def keep_predictions(config: Config, folder: Path) -> None:
    """Has each validation write what was found, and AP class by class.

    Args:
        config: Changed in place; one without ``CocoMetric`` is left alone.
        folder: Where the file goes.
    """
    metric = coco_metric(config)
    if metric is not None:
        metric.update(outfile_prefix=str(folder / PREFIX), classwise=True)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes a compressed ``.npz``, whole or not at all.

    Args:
        path: The file.
        arrays: Name to array.
    """
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(path, content.getvalue())


def pack_predictions(folder: Path) -> None:
    """Replaces the last validation's JSON by a file a tenth as large."""
    written = folder / WRITTEN
    if not written.is_file():
        return
    found = json.loads(written.read_text())
    # Of an earlier training.
    (folder / RESAMPLED).unlink(missing_ok=True)
    write_arrays(
        folder / PREDICTIONS,
        image_id=np.array([f['image_id'] for f in found], np.int64),
        category_id=np.array([f['category_id'] for f in found], np.int32),
        bbox=np.array([f['bbox'] for f in found], np.float32).reshape(-1, 4),
        score=np.array([f['score'] for f in found], np.float32),
    )
    written.unlink()


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
        if (cell.folder / PREDICTIONS).is_file() and ground_truth(cell.config)
    }


def check_same_images(cells: Iterable[Cell]) -> None:
    """Refuses cells whose samples of the images could not be paired.

    Args:
        cells: The cells; those without ``CocoMetric`` are left alone.

    Raises:
        ExperimentError: two of them validate on different annotations.
    """
    paths = [ground_truth(cell.config) for cell in cells]
    first, *others = dict.fromkeys(filter(None, paths)) or [None]
    for path in others:
        if file_sha256(path) != file_sha256(first):
            raise ExperimentError(
                'the bootstrap draws the same validation images for all '
                'methods, but val_evaluator.ann_file differs: '
                f'{first} and {path}. Give all methods the same file, or '
                '--bootstrap 0'
            )


def _bootstrap(cell: Cell, samples: int) -> Bootstrap:
    kept = kept_bootstrap(cell.folder, samples)
    if kept is not None:
        return kept
    made = bootstrap(matched(cell.config, cell.folder), samples)
    write_arrays(
        cell.folder / RESAMPLED,
        whole=made.whole,
        samples=made.samples,
        images=made.images,
    )
    return made
