"""Logits of several students and their teacher, sample by sample."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmrkkd.evaluation.image_scores import Scored

# A teacher in bfloat16 on a GPU is not the same to the last digit.
SAME = 2e-2


@dataclass
class MatchedLogits:
    """Of N samples and C classes: images, annotated boxes, or places.

    Args:
        teacher: (N, C), before softmax or sigmoid.
        students: Label to (N, C), of the same samples and classes.
        labels: (N, ), index of the true class; -1 where there is none.
        names: The C classes.
        samples: The N samples, named by their image.
        pictures: Name of an image to its file, or its pixels.
        boxes: (N, 4) in pixels of the image; None of classifiers, and of
            detectors whose samples are not the annotated boxes.
        activation: 'softmax' or 'sigmoid'.
        teacher_label: What the teacher is called.
    """

    teacher: np.ndarray
    students: dict[str, np.ndarray]
    labels: np.ndarray
    names: list[str]
    samples: list[str]
    pictures: dict[str, object]
    boxes: np.ndarray | None
    activation: str
    teacher_label: str = 'teacher'

    @property
    def models(self) -> dict[str, np.ndarray]:
        """The teacher first, then the students."""
        return {self.teacher_label: self.teacher, **self.students}


def matched_logits(
    scored: Mapping[str, Scored], teacher_label: str = 'teacher'
) -> MatchedLogits:
    """Puts what was scored of several students side by side.

    Args:
        scored: Student to what it and its teacher say of the same images.
        teacher_label: What the teacher is called. Defaults to 'teacher'.

    Raises:
        ValueError: there is no sample, or the students were compared on
            unlike classes or samples, or with unlike teachers.
    """
    if teacher_label in scored:
        # A student's folder may have any name.
        teacher_label = f'{teacher_label} (teaching)'
    (first, one), *others = scored.items()
    images = list(one.images.values())
    teacher = _joined(image.logits[1] for image in images)
    if not len(teacher):
        raise ValueError(
            f'the {len(images)} scored images hold nothing to compare on: '
            'no annotated object; score more with --images'
        )
    for label, other in others:
        same = _joined(image.logits[1] for image in other.images.values())
        if one.names != other.names or same.shape != teacher.shape:
            raise ValueError(
                f'{first} and {label} cannot be drawn side by side: they '
                f'were compared with their teacher on {len(one.names)} '
                f'classes, {len(teacher)} samples and {len(other.names)} '
                f'classes, {len(same)} samples; make a figure of each'
            )
        if not np.allclose(same, teacher, SAME, SAME):
            raise ValueError(
                f'{first} and {label} have unlike teachers; make a figure '
                'of the students of each'
            )
    objects = all(image.on_objects for image in images)
    boxes = [image.boxes for image in images if image.boxes is not None]
    rows = [(image, row) for image in images for row in range(len(image.tau))]
    return MatchedLogits(
        teacher,
        {
            label: _joined(image.logits[0] for image in each.images.values())
            for label, each in scored.items()
        },
        np.array(
            [
                _index(one.names, image.labels[row]) if objects else -1
                for image, row in rows
            ]
        ),
        list(one.names),
        [image.path for image, _ in rows],
        one.pictures,
        np.concatenate(boxes) if objects and boxes else None,
        one.activation,
        teacher_label,
    )


def _joined(rows: object) -> np.ndarray:
    return np.concatenate(list(rows)).astype(np.float64)


def _index(names: list[str], name: str) -> int:
    return names.index(name) if name in names else -1
