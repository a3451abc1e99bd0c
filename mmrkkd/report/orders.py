"""How students follow their teacher on scored images."""

from collections import Counter
from collections.abc import Mapping
from math import nan

import numpy as np

from mmrkkd.evaluation.image_scores import Scored

from .confusions import swapped_pairs


def swaps(
    scored: Mapping[str, Scored],
) -> tuple[dict[str, Counter], Counter]:
    """Pairs of classes that students put in the wrong order.

    Args:
        scored: Student to what it and its teacher say.

    Returns:
        See :func:`swapped_pairs`: student to counts, and how often the
        teacher had them so.
    """
    swapped, seen = {}, Counter()
    for label, found in scored.items():
        rows = (
            pair
            for each in found.images.values()
            for pair in zip(each.student, each.teacher, strict=True)
        )
        swapped[label], seen = swapped_pairs(rows, found.names)
    return swapped, seen


def agreements(
    scored: Mapping[str, Scored],
) -> dict[str, tuple[float, float, float]]:
    """How well students follow their teacher on the scored images.

    Args:
        scored: See :func:`swaps`.

    Returns:
        Student to the mean of tau in [-1, 1] (NaN where no row has one), how
        often both have the same first class, and how many pairs of the
        teacher's leading classes it swaps, both in percent.
    """
    found = {}
    swapped, seen = swaps(scored)
    for label, each in scored.items():
        images = list(each.images.values())
        taus = np.concatenate([image.tau for image in images])
        same = np.concatenate(
            [
                image.student.argmax(1) == image.teacher.argmax(1)
                for image in images
            ]
        )
        if len(same):
            found[label] = (
                float(np.nanmean(taus)) if np.isfinite(taus).any() else nan,
                100 * float(same.mean()),
                100 * swapped[label].total() / max(seen.total(), 1),
            )
    return found


def answers(
    scored: Mapping[str, Scored], seeds: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """On which images classifiers are right, where all were scored.

    Args:
        scored: See :func:`swaps`.
        seeds: Student to the number of its runs; only the first of several
            was scored, so they are left out.

    Returns:
        Student to (I, ) bool; {} where not the whole set was scored, or
        boxes.
    """
    return {
        label: np.array(
            [
                each.names[image.student[0].argmax()] == image.labels[0]
                for image in each.images.values()
            ]
        )
        for label, each in scored.items()
        if each.whole
        and seeds[label] == 1
        and all(image.boxes is None for image in each.images.values())
    }
