"""Images with what models say of them, as data for the page."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps

from mmrkkd.evaluation.image_scores import ImageScores

from .confusions import TOP, leading

THUMBNAIL = 320
JPEG_QUALITY = 82
# What the page's slider can show; a model's detections of one image.
LEAST_SCORE = 0.05
MOST_BOXES = 40
# Boxes of an image whose ranked classes are shown.
MOST_ROWS = 8
# Rows that are no boxes of the image (cells, queries) say much the same.
MOST_OTHER_ROWS = 3


@dataclass
class Entry:
    """An image of the gallery.

    Args:
        name: What it is called.
        picture: Its file, or its pixels, uint8 (H, W, 3), RGB.
        objects: (left, top, right, bottom, label) of each object; of an
            image that is classified as a whole (label, ).
        found: Model to (left, top, right, bottom, label, score, object) of
            each detection, the best first, or (label, score, object);
            object is the index of the one that is met, or -1. A number that
            is not finite is None.
        ranks: Rows of ranked classes, see :func:`ranked_rows`.
    """

    name: str
    picture: str | np.ndarray
    objects: list[list[float]]
    found: dict[str, list[list[float]]]
    ranks: list[dict] = field(default_factory=list)


def detected_entry(
    name: str,
    picture: str | np.ndarray,
    truth: object,
    found: Mapping[str, object],
) -> Entry:
    """The entry of an image with boxes.

    Args:
        name: What it is called.
        picture: See :class:`Entry`.
        truth: Its objects (:class:`mmrkkd.report.verdicts.Detections`).
        found: Model to its detections, unsorted.
    """
    from .verdicts import met_objects

    entry = Entry(name, picture, _rows(truth.boxes, truth.labels), {})
    for model, everything in found.items():
        best = everything.strongest(LEAST_SCORE)
        met = met_objects(best, truth)
        rows = _rows(best.boxes, best.labels)
        entry.found[model] = [
            [*row, _finite(score), index]
            for row, score, index in zip(rows, best.scores, met, strict=True)
        ][:MOST_BOXES]
    return entry


def _rows(boxes: np.ndarray, labels: np.ndarray) -> list[list[float]]:
    return [
        [*(_finite(value, 1) for value in box), int(label)]
        for box, label in zip(boxes, labels, strict=True)
    ]


def classified_entry(
    name: str,
    picture: str | np.ndarray,
    label: int,
    scores: Mapping[str, np.ndarray],
) -> Entry:
    """The entry of an image that is classified as a whole.

    Args:
        name: What it is called.
        picture: See :class:`Entry`.
        label: The true class.
        scores: Model to (C, ), in the classes that labels count.
    """
    found = {}
    for model, row in scores.items():
        said = int(row.argmax())
        found[model] = [[said, _finite(row[said]), 0]]
    return Entry(name, picture, [[int(label)]], found)


def disagreement(entry: Entry, threshold: float) -> int:
    """How many objects some models get right and others do not.

    The page counts by the same rule when it sorts (gallery.js).

    Args:
        entry: The image.
        threshold: Lower scores do not count.
    """
    right = [
        {
            int(row[-1])
            for row in rows
            if (row[-2] or 0) >= threshold
            and row[-1] >= 0
            and row[-3] == entry.objects[int(row[-1])][-1]
        }
        for rows in entry.found.values()
    ]
    if not right:
        return 0
    return len(set.union(*right) - set.intersection(*right))


def ranked_rows(
    scores: Mapping[str, ImageScores],
    names: Mapping[str, Sequence[str]],
    known: Mapping[str, int],
) -> list[dict]:
    """The teacher's leading classes, and where each student has them.

    Args:
        scores: Student to what it and its teacher say of the image; the
            rows are the same for all.
        names: Student to the classes of its scores.
        known: Class name to its number on the page.

    Returns:
        A dict a row: ``object`` (box and label, label alone, or None) and
        ``lists``, student to ``tau`` and ``classes``: (number, probability
        for the teacher and for the student, rank for the teacher and for
        the student), the teacher's first first; where the student puts
        another class first, that too.
    """
    first = next(iter(scores.values()))
    count = MOST_ROWS if first.on_objects else MOST_OTHER_ROWS
    rows = []
    for index in range(min(len(first.teacher), count)):
        place = None
        if first.on_objects:
            box = [] if first.boxes is None else first.boxes[index]
            place = [round(float(value), 1) for value in box]
            place.append(known[first.labels[index]])
        rows.append(
            dict(
                object=place,
                lists={
                    student: dict(
                        tau=_finite(each.tau[index]),
                        classes=_ranked(
                            each.student[index],
                            each.teacher[index],
                            names[student],
                            known,
                        ),
                    )
                    for student, each in scores.items()
                },
            )
        )
    return rows


def _ranked(
    student: np.ndarray,
    teacher: np.ndarray,
    names: Sequence[str],
    known: Mapping[str, int],
) -> list[list[float]]:
    shown = list(leading(teacher, TOP))
    best = int(student.argmax())
    if best not in shown:
        shown.append(best)
    ranks = [
        np.argsort(np.argsort(-values, kind='stable'))
        for values in (teacher, student)
    ]
    return [
        [
            known[names[index]],
            _short(teacher[index]),
            _short(student[index]),
            int(ranks[0][index]) + 1,
            int(ranks[1][index]) + 1,
        ]
        for index in shown
    ]


def _finite(value: float, digits: int = 3) -> float | None:
    """JSON knows no NaN, which a model that has diverged says."""
    return round(float(value), digits) if np.isfinite(value) else None


def _short(value: float) -> float | None:
    return float(f'{value:.3g}') if np.isfinite(value) else None


def opened(picture: str | np.ndarray) -> Image.Image:
    """An image as the models see it, turned as its camera was held.

    Args:
        picture: See :class:`Entry`.

    Raises:
        OSError: the file is missing, or no image.
    """
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture)
    return ImageOps.exif_transpose(Image.open(os.fspath(picture)))


def thumbnail(picture: str | np.ndarray) -> tuple[str, int, int]:
    """A small JPEG as a data URI, and the size of the whole image.

    Args:
        picture: See :class:`Entry`.

    Raises:
        OSError: the file is missing, or no image.
    """
    image = opened(picture)
    width, height = image.size
    image = image.convert('RGB')
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=JPEG_QUALITY)
    text = base64.b64encode(file.getvalue()).decode()
    return f'data:image/jpeg;base64,{text}', width, height


def as_data(entry: Entry) -> dict:
    """What the page gets of an entry.

    Raises:
        OSError: see :func:`thumbnail`.
    """
    uri, width, height = thumbnail(entry.picture)
    return dict(
        name=os.path.basename(entry.name),
        jpeg=uri,
        width=width,
        height=height,
        objects=entry.objects,
        found=entry.found,
        ranks=entry.ranks,
    )
