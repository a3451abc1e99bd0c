"""Checks of the annotations of a batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmrkkd.ops import checks


def check_samples(
    data_samples: Sequence[object] | None, classes: int, boxes: bool = True
) -> None:
    """Refuses annotations that no student can learn from.

    A box labelled with the number of classes would count as background, a
    larger label stops a GPU without a word about the reason, and a box
    without area makes the regression loss NaN. All are looked at on the CPU
    only, before they are sent: on a GPU the step would wait for them.

    Args:
        data_samples: Samples with ``gt_instances.labels`` and ``.bboxes``
            (L, 4) as x1, y1, x2, y2, or ``gt_label``; others are passed
            over.
        classes: Number of the student's classes, without background.
        boxes: Whether the student learns boxes. One that learns masks alone
            may get an object that a crop has emptied, with the box
            0, 0, 0, 0. Defaults to True.

    Raises:
        ValueError: a label is outside [0, classes - 1], or a box that is
            learnt has no area; the message names the image.
    """
    samples = data_samples or ()
    if not isinstance(samples, Sequence):
        return

    def known(labels: Tensor) -> Tensor:
        return (labels >= 0) & (labels < classes)

    index, wrong = _first_wrong([_labels(sample) for sample in samples], known)
    if wrong:
        raise ValueError(
            f'labels must be class indices in [0, {classes - 1}], got '
            f'{wrong} in {_name(samples[index])}: the student has {classes} '
            'classes; compare num_classes of its head with the metainfo of '
            'the data set'
        )
    if not boxes:
        return
    index, wrong = _first_wrong(
        [_boxes(sample) for sample in samples], _has_area
    )
    if wrong:
        raise ValueError(
            'boxes must have x1 < x2 and y1 < y2, in pixels of the image as '
            f'the model gets it, got {wrong} in {_name(samples[index])}; '
            'remove such boxes from the annotations, or put '
            'FilterAnnotations at the end of the data pipeline'
        )


def _has_area(boxes: Tensor) -> Tensor:
    """(L, 4) -> (L,); a NaN has none."""
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


def _first_wrong(
    values: Sequence[Tensor], rule: Callable[[Tensor], Tensor]
) -> tuple[int, list]:
    """Index of the first sample with wrong values, and those values."""
    filled = [part for part in values if len(part)]
    if filled and not bool(rule(torch.cat(filled)).all()):
        for index, part in enumerate(values):
            wrong = part[~rule(part)].tolist()
            if wrong:
                return index, wrong
    return -1, []


def _labels(sample: object) -> Tensor:
    """(L,), the labels of a sample; none where they are not checked."""
    labels = getattr(getattr(sample, 'gt_instances', None), 'labels', None)
    if labels is None:
        labels = getattr(sample, 'gt_label', None)
    if labels is None or not checks.at_hand(labels):
        return torch.zeros(0)
    return labels.reshape(-1)


def _boxes(sample: object) -> Tensor:
    """(L, 4), the boxes of a sample; none where it has none."""
    boxes = getattr(getattr(sample, 'gt_instances', None), 'bboxes', None)
    # MMDetection's box types hold a tensor.
    boxes = getattr(boxes, 'tensor', boxes)
    if boxes is None or boxes.dim() != 2 or boxes.shape[1] != 4:
        return torch.zeros(0, 4)
    if not checks.at_hand(boxes):
        return torch.zeros(0, 4)
    return boxes


def _name(sample: object) -> str:
    return getattr(sample, 'img_path', 'an image without img_path')
