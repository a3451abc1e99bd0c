"""COCO's average precision on images drawn again and again.

What a detection met is found once an image, by pycocotools; a sample of the
images then only counts again. So a thousand samples cost seconds.
"""

import contextlib
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pycocotools.coco import COCO

# COCO's: precision is read at these recalls, of the 100 best of an image.
RECALLS = np.linspace(0, 1, 101)
DETECTIONS = 100


@dataclass
class ClassMatches:
    """The detections of one class on all images, the best first.

    Args:
        images: (D, ), the index of the image of each.
        hits: (T, D), whether it meets a free object, by IoU threshold.
        counted: (T, D), whether it counts: one on a crowd does not.
        objects: (I, ), how many objects there are in each image.
    """

    images: np.ndarray
    hits: np.ndarray
    counted: np.ndarray
    objects: np.ndarray

    def average_precision(self, copies: np.ndarray) -> np.ndarray:
        """The average precision at each threshold, (T, ).

        Args:
            copies: (I, ), how often each image is in the sample.

        Returns:
            In [0, 1], NaN where the sample has no object of the class.
        """
        objects = copies @ self.objects
        if not objects:
            return np.full(len(self.hits), np.nan)
        weights = copies[self.images]
        hits = np.cumsum(self.hits * self.counted * weights, 1)
        misses = np.cumsum(~self.hits * self.counted * weights, 1)
        precision = hits / (hits + misses + np.spacing(1))
        # The best precision from each recall on, as COCO interpolates.
        best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        best = np.concatenate([best, np.zeros((len(best), 1))], 1)
        return np.array(
            [
                row[np.searchsorted(recall, RECALLS)].mean()
                for row, recall in zip(best, hits / objects, strict=True)
            ]
        )


@dataclass
class Matches:
    """What a detector's detections met.

    Args:
        classes: Name to matches.
        images: How many images there are.
        thresholds: (T, ), intersections over union.
    """

    classes: dict[str, ClassMatches]
    images: int
    thresholds: np.ndarray

    def average_precision(
        self, copies: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The average precision of each class at each threshold, (T, ).

        Args:
            copies: (I, ), how often each image is in the sample. Defaults
                to once.
        """
        if copies is None:
            copies = np.ones(self.images, int)
        return {
            name: matches.average_precision(copies)
            for name, matches in self.classes.items()
        }

    def scores(self, copies: np.ndarray | None = None) -> tuple[float, float]:
        """AP and AP50 in [0, 1]; NaN where no class has an object.

        Args:
            copies: (I, ), how often each image is in the sample. Defaults
                to once.
        """
        table = np.stack(list(self.average_precision(copies).values()))
        table = table[~np.isnan(table[:, 0])]
        if not len(table):
            return float('nan'), float('nan')
        half = np.flatnonzero(np.isclose(self.thresholds, 0.5))[0]
        return float(table.mean()), float(table[:, half].mean())


def match_images(
    ground_truth: str | Path,
    detections: Mapping[str, np.ndarray],
    classes: Sequence[str] | None = None,
) -> Matches:
    """Finds out what each detection meets, by COCO's rules.

    Args:
        ground_truth: Annotation file in COCO's format.
        detections: ``image_id`` (D, ), ``category_id`` (D, ), ``bbox``
            (D, 4; left, top, width, height in pixels) and ``score`` (D, ).
        classes: Names of the classes that count. Defaults to all.

    Returns:
        The matches over all images of the file.

    Raises:
        ValueError: the file cannot be read, or lacks an image that has
            detections.
    """
    # MMDetection brings it: who has classifiers alone can do without.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = read_coco(ground_truth)
    refuse_unknown_images(detections['image_id'], truth.imgs)
    # pycocotools tells its progress to the standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        # Of no detection at all pycocotools makes an error.
        found = COCO()
        found.dataset = dict(
            truth.dataset, annotations=_annotations(detections)
        )
        found.createIndex()
        evaluation = COCOeval(truth, found, 'bbox')
        parameters = evaluation.params
        if classes is not None:
            parameters.catIds = truth.getCatIds(catNms=list(classes))
        parameters.areaRng = parameters.areaRng[:1]
        parameters.areaRngLbl = parameters.areaRngLbl[:1]
        parameters.maxDets = [DETECTIONS]
        evaluation.evaluate()
    # By class, then by image; None where neither has one.
    parameters, entries = evaluation.params, evaluation.evalImgs
    count = len(parameters.imgIds)
    names = [truth.cats[number]['name'] for number in parameters.catIds]
    return Matches(
        {
            name: _of_class(
                entries[number * count : (number + 1) * count],
                len(parameters.iouThrs),
            )
            for number, name in enumerate(names)
        },
        count,
        parameters.iouThrs,
    )


def read_coco(path: str | Path) -> 'COCO':
    """Annotations as pycocotools knows them.

    Args:
        path: File in COCO's format.

    Raises:
        ValueError: the file is no JSON.
    """
    from pycocotools.coco import COCO

    coco = COCO()
    try:
        coco.dataset = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(
            f'{path} is no annotation file in JSON ({error}): put a copy in '
            'its place'
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def refuse_unknown_images(
    found: Iterable[int], known: Collection[int]
) -> None:
    """Refuses detections that belong to other annotations.

    COCO's evaluation would leave them out without a word.

    Args:
        found: The images of detections, by number.
        known: The images of the annotation file, by number.

    Raises:
        ValueError: there are detections on another image.
    """
    unknown = sorted({int(number) for number in found}.difference(known))
    if unknown:
        raise ValueError(
            f'the kept predictions must be on the {len(known)} images of the '
            f'annotation file, got {len(unknown)} others, among them image '
            f'{unknown[0]}: the file is not the one that the run was '
            'validated on; put that in its place, or say where it lies with '
            '--cfg-options data_root=PATH'
        )


def _annotations(detections: Mapping[str, np.ndarray]) -> list[dict]:
    boxes = np.asarray(detections['bbox'], float).reshape(-1, 4)
    return [
        dict(
            id=number + 1,
            image_id=int(detections['image_id'][number]),
            category_id=int(detections['category_id'][number]),
            bbox=box.tolist(),
            area=float(box[2] * box[3]),
            iscrowd=0,
            score=float(detections['score'][number]),
        )
        for number, box in enumerate(boxes)
    ]


def _of_class(entries: list[dict | None], thresholds: int) -> ClassMatches:
    images, scores = [np.zeros(0, int)], [np.zeros(0)]
    hits = [np.zeros((thresholds, 0), bool)]
    ignored = [np.zeros((thresholds, 0), bool)]
    objects = np.zeros(len(entries), int)
    for index, entry in enumerate(entries):
        if entry is None:
            continue
        objects[index] = np.count_nonzero(np.equal(entry['gtIgnore'], 0))
        images.append(np.full(len(entry['dtScores']), index))
        scores.append(np.asarray(entry['dtScores'], float))
        hits.append(entry['dtMatches'] != 0)
        ignored.append(entry['dtIgnore'] != 0)
    # Stable, as COCO's own order.
    order = np.argsort(-np.concatenate(scores), kind='stable')
    return ClassMatches(
        np.concatenate(images)[order],
        np.concatenate(hits, 1)[:, order],
        ~np.concatenate(ignored, 1)[:, order],
        objects,
    )
