"""Which classes models take for each other, and order otherwise."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

MISSED = '(missed)'
# Of the classes that a teacher puts first so many are compared.
TOP = 5


def confused_objects(
    truths: Sequence, found: Sequence, names: Sequence[str], threshold: float
) -> Counter:
    """What each object is taken for.

    Args:
        truths: Objects of each image
            (:class:`mmrkkd.report.verdicts.Detections`).
        found: Detections of a model on each image.
        names: The class names.
        threshold: Lower scores do not count.

    Returns:
        (true name, name that was found, or ``MISSED``) to count.
    """
    # MMDetection and MMCV: who has classifiers alone can do without.
    from .verdicts import met_objects

    counts = Counter()
    for truth, everything in zip(truths, found, strict=True):
        best = everything.strongest(threshold)
        said = {
            index: names[label]
            for index, label in zip(
                met_objects(best, truth), best.labels, strict=True
            )
        }
        for index, label in enumerate(truth.labels):
            counts[names[label], said.get(index, MISSED)] += 1
    return counts


def most_disputed_pairs(
    counts: dict[str, Counter], limit: int
) -> list[tuple[str, str]]:
    """The pairs that some models confuse more often than others.

    Args:
        counts: Model to (one name, other name) to count.
        limit: How many pairs; there may be fewer.

    Returns:
        Pairs of unlike classes, those of the largest range over the models
        first, then those of the largest sum.
    """
    pairs = {
        pair
        for each in counts.values()
        for pair in each
        if pair[0] != pair[1] and pair[1] != MISSED
    }

    def rank(pair: tuple[str, str]) -> tuple:
        values = [each[pair] for each in counts.values()]
        return min(values) - max(values), -sum(values), pair

    return sorted(pairs, key=rank)[:limit]


def leading(scores: np.ndarray, count: int = TOP) -> np.ndarray:
    """The classes of the highest scores, the highest first.

    Args:
        scores: (C, ).
        count: How many. Defaults to ``TOP``.
    """
    return np.argsort(-scores, kind='stable')[:count]


def swapped_pairs(
    rows: Iterable[tuple[np.ndarray, np.ndarray]], names: Sequence[str]
) -> tuple[Counter, Counter]:
    """Pairs of the teacher's leading classes that a student swaps.

    Args:
        rows: The scores of student and teacher, each (C, ).
        names: The classes.

    Returns:
        (higher, lower for the teacher) to how often the student has them in
        the other order, and to how often the teacher had them so.
    """
    swapped, seen = Counter(), Counter()
    for student, teacher in rows:
        order = leading(teacher)
        for place, first in enumerate(order):
            for second in order[place + 1 :]:
                if teacher[first] == teacher[second]:
                    continue
                pair = names[first], names[second]
                seen[pair] += 1
                # A student whose scores are NaN keeps no order.
                kept = student[first] >= student[second]
                swapped[pair] += not kept
    return swapped, seen
