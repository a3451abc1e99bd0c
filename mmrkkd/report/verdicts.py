"""Whether detections are right, by the ground truth."""

from dataclasses import dataclass

import numpy as np
from mmcv.ops import nms
from mmdet.evaluation.functional import bbox_overlaps

# Intersection over union from which a box is met.
IOU = 0.5


@dataclass
class Detections:
    """What one model, or the ground truth, says about one image.

    Args:
        boxes: (N, 4), left, top, right, bottom in pixels of the image.
        labels: (N, ), class indices.
        scores: (N, ) in [0, 1], or None for the ground truth.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

    def strongest(self, threshold: float) -> 'Detections':
        """The best at each place, the best first.

        A detector suppresses repetitions within a class only: where it
        wavers between classes it reports them all, one upon the other. One
        that overlaps a better one by more than :data:`IOU` is left out,
        whatever its class.

        Args:
            threshold: Lower scores are left out.
        """
        _, kept = nms(
            self.boxes.astype(np.float32).reshape(-1, 4),
            self.scores.astype(np.float32),
            IOU,
            score_threshold=threshold,
        )
        return Detections(
            self.boxes[kept], self.labels[kept], self.scores[kept]
        )


def judge(found: Detections, truth: Detections) -> list[str]:
    """Says of each detection whether it is right.

    Each detection takes the free ground-truth box that it overlaps most,
    those with high scores first, as COCO's evaluation does; but over all
    classes, to tell a wrong class from a wrong place.

    Args:
        found: Detections, the best first.
        truth: The ground truth.

    Returns:
        For each detection 'correct', 'wrong_class' or 'no_object'.
    """
    return verdicts_and_missed(found, truth)[0]


def verdicts_and_missed(
    found: Detections, truth: Detections
) -> tuple[list[str], list[int]]:
    """See :func:`judge`; and the objects that were not met."""
    met = met_objects(found, truth)
    verdicts = [
        'no_object'
        if index < 0
        else ('correct' if truth.labels[index] == label else 'wrong_class')
        for index, label in zip(met, found.labels, strict=True)
    ]
    return verdicts, sorted(set(range(len(truth.boxes))) - set(met))


def met_objects(found: Detections, truth: Detections) -> list[int]:
    """Which object each detection takes, see :func:`judge`.

    Args:
        found: Detections, the best first.
        truth: The ground truth.

    Returns:
        For each detection the index of an object, -1 for none.
    """
    taken, free = [], list(range(len(truth.boxes)))
    overlaps = bbox_overlaps(found.boxes, truth.boxes)
    for row, label in zip(overlaps, found.labels, strict=True):
        met = [index for index in free if row[index] >= IOU]
        # Two ground-truth boxes may be met: the one of the right class wins.
        same = [index for index in met if truth.labels[index] == label]
        best = max(same or met, key=lambda index: row[index], default=-1)
        taken.append(best)
        if best >= 0:
            free.remove(best)
    return taken
