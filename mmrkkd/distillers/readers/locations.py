"""Which samples of a match a loss counts, and how much each."""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from mmrkkd.losses.feature.base import is_distributed
from mmrkkd.losses.placement import Placement

from ..class_map import ClassMap
from .base import Match, Scores

# A teacher's score below this says nothing about an object.
LEAST_SCORE = 0.05


def confidence(
    logits: Tensor, scores: Scores, class_map: ClassMap | None = None
) -> Tensor:
    """The highest probability of a class, background left out.

    Args:
        logits: (N, C), the teacher's.
        scores: What they mean; how many there are does not matter.
        class_map: Which classes are compared: others have no say, but for
            their share of a softmax. Defaults to None, all.

    Returns:
        (N,), in [0, 1], float32 or wider.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if scores.activation == 'sigmoid':
        # The order of logits is that of probabilities: no copy of (N, C).
        known = _known(logits.detach(), class_map)
        return known.amax(-1).to(dtype).sigmoid()
    classes = _known(logits.detach().to(dtype).softmax(-1), class_map)
    # The teacher may know other classes than scores says of the student.
    return (classes[..., :-1] if scores.background else classes).amax(-1)


def _known(values: Tensor, class_map: ClassMap | None) -> Tensor:
    """(N, C_t) -> (N, C), of the compared classes, in any order."""
    few = class_map is not None and class_map.teacher is not None
    if not few or len(class_map.teacher) == values.shape[-1]:
        return values
    return class_map.select_teacher(values)


def check_shown(labels: Tensor | None, what: str, instead: str) -> None:
    """Refuses a match whose head shows no labels.

    Args:
        labels: The match's.
        what: What needs them.
        instead: What to do.

    Raises:
        RuntimeError: see above.
    """
    if labels is None:
        raise RuntimeError(
            f"{what} needs labels, and the student's head does not show them: "
            f'its loss is called on other scores than it puts out. {instead}'
        )


def foreground(labels: Tensor, classes: int) -> Tensor:
    """(N,) bool: the label is a class, not the background and not none."""
    return (labels >= 0) & (labels < classes)


def located(
    match: Match,
    scores: Scores,
    placement: Placement,
    class_map: ClassMap | None = None,
) -> Tensor | None:
    """The weight of each sample where a loss applies.

    Args:
        match: The samples, (N, C).
        scores: What the teacher's scores mean.
        placement: The locations, and the share of 'top'; where it has no
            locations the weights are the match's own.
        class_map: Which classes are compared. Defaults to None, all.

    Returns:
        (N,), >= 0, or None for 1.

    Raises:
        RuntimeError: 'foreground', and the head shows no labels.
    """
    locations = placement.locations
    if locations is None:
        return match.weight
    counts = match.counts
    if locations == 'all':
        return None if counts is None else counts.float()
    if locations == 'foreground':
        check_shown(
            match.labels,
            "locations='foreground'",
            "Use locations='all' or 'confidence', for cells 'top'",
        )
        return foreground(match.labels, scores.classes).float()
    weight = match.confidence
    if weight is None:
        weight = confidence(match.teacher_logits, scores, class_map)
    if counts is not None:
        weight = weight * counts
    if locations == 'confidence':
        return weight
    images = weight.view(match.images or 1, -1)
    kept = highest(images, placement.top)
    return (
        torch.zeros_like(images)
        .scatter_(1, kept, images.gather(1, kept))
        .flatten()
    )


def highest(weight: Tensor, top: float) -> Tensor:
    """(B, R) -> (B, k), where the share ``top`` of each row is highest."""
    count = math.ceil(top * weight.shape[1])
    return weight.topk(count, 1, sorted=False).indices


def positives(match: Match, scores: Scores) -> Tensor:
    """What a sum over all cells is divided by: N+, at least 1.

    The number of cells whose label is a class; where the head shows no
    labels, the teacher's mass: the sum of its highest scores from 0.05 on.
    The mean over the processes of a distributed run, so that the gradient
    is that of one process with the whole batch.
    """
    if match.labels is not None:
        count = foreground(match.labels, scores.classes).sum()
    else:
        weight = match.confidence
        if weight is None:
            weight = confidence(match.teacher_logits, scores)
        count = torch.where(weight >= LEAST_SCORE, weight, 0.0).sum()
    return _mean_over_processes(count.float()).clamp(min=1)


def divisor(
    match: Match, normalizer: str | None, weight: Tensor | None
) -> Tensor | None:
    """What the sum of a loss is divided by.

    Args:
        match: The samples.
        normalizer: 'positives' or 'weight'.
        weight: (N,), where the loss applies, or None for 1.

    Returns:
        A scalar > 0; None for the sum of the weights of this process. Of
        cells it is the mean over the processes, as the positives are:
        processes whose teachers see much weigh more than others.
    """
    if normalizer == 'positives':
        return match.normalizer
    if match.images is None or not is_distributed():
        return None
    cells = match.confidence.numel()
    # Made on the device: a number sent there would be waited for.
    number = match.confidence.new_full((), cells, dtype=torch.float32)
    total = number if weight is None else weight.sum()
    total = _mean_over_processes(total.float())
    return total.clamp(min=torch.finfo(total.dtype).tiny)


def _mean_over_processes(value: Tensor) -> Tensor:
    if is_distributed():
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value
