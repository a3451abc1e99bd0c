"""Images to show, and what detectors were found to find on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmrkkd.evaluation.kept_predictions import COLUMNS
from mmrkkd.evaluation.resampled_ap import read_coco, refuse_unknown_images

from .verdicts import Detections, judge


@dataclass
class Truths:
    """The ground truth of a set of images.

    Args:
        files: The images.
        ids: Their numbers in the annotation file.
        objects: What is on each.
        classes: Category number to (index, name).
    """

    files: list[str]
    ids: list[int]
    objects: list[Detections]
    classes: dict[int, tuple[int, str]]

    @property
    def names(self) -> list[str]:
        """The class names by index."""
        return [name for _, name in self.classes.values()]


def read_truths(
    annotations: str | Path,
    images: str | Path,
    names: Sequence[str] | None = None,
) -> Truths:
    """The ground truth of a file in COCO's format.

    Args:
        annotations: The file.
        images: The folder of the images.
        names: The classes that count. Defaults to all.

    Raises:
        ValueError: the file cannot be read.
    """
    coco = read_coco(annotations)
    categories = [
        category
        for category in coco.dataset['categories']
        if names is None or category['name'] in names
    ]
    classes = {
        category['id']: (index, category['name'])
        for index, category in enumerate(categories)
    }
    ids = coco.getImgIds()
    return Truths(
        [
            str(Path(images) / entry['file_name'])
            for entry in coco.loadImgs(ids)
        ],
        ids,
        [
            Detections(
                *_boxes(
                    coco.loadAnns(
                        coco.getAnnIds(number, list(classes), iscrowd=False)
                    ),
                    classes,
                )
            )
            for number in ids
        ],
        classes,
    )


def read_found(
    found: Mapping[str, np.ndarray], truths: Truths
) -> list[Detections]:
    """What a detector found on each image.

    Args:
        found: ``image_id`` (D, ), ``category_id`` (D, ), ``bbox`` (D, 4;
            left, top, width, height in pixels) and ``score`` (D, ).
        truths: The ground truth. Of its classes alone detections count.

    Raises:
        ValueError: there are detections on an image that is not among these.
    """
    rows = {number: [] for number in truths.ids}
    # Read once: an archive unpacks an array each time it is asked for.
    columns = {name: found[name] for name in COLUMNS}
    refuse_unknown_images(columns['image_id'], rows)
    for values in zip(*columns.values(), strict=True):
        entry = dict(zip(COLUMNS, values, strict=True))
        if int(entry['category_id']) in truths.classes:
            rows[int(entry['image_id'])].append(entry)
    return [
        Detections(
            *_boxes(rows[number], truths.classes),
            np.array([entry['score'] for entry in rows[number]], float),
        )
        for number in truths.ids
    ]


def most_disputed(
    truths: Sequence[Detections],
    columns: Sequence[Sequence[Detections]],
    count: int,
    threshold: float,
) -> list[int]:
    """The images on which some models are right more often than others.

    Whoever wins: by the difference between the most and the fewest objects
    that a model gets right; the first images where that is equal.

    Args:
        truths: The ground truth of each image.
        columns: The detections of each model on each image.
        count: How many images; there may be fewer.
        threshold: Lower scores do not count.

    Returns:
        Indices of images, in ascending order.
    """
    right = np.array(
        [
            [
                right_ones(found, truth, threshold)
                for found, truth in zip(column, truths, strict=True)
            ]
            for column in columns
        ]
    )
    order = np.argsort(right.min(0) - right.max(0), kind='stable')
    return sorted(order[:count].tolist())


def right_ones(found: Detections, truth: Detections, threshold: float) -> int:
    """How many objects a model finds and names, see :func:`judge`."""
    return judge(found.strongest(threshold), truth).count('correct')


def _boxes(entries: list[Mapping], classes: dict) -> tuple:
    boxes = np.array([entry['bbox'] for entry in entries], float)
    boxes = boxes.reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [classes[int(entry['category_id'])][0] for entry in entries]
    return boxes, np.array(labels, int)
