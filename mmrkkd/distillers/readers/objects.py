"""Which object of its image each sample of a detector is a candidate of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .heads import prior_of
from .locations import check_shown


@torch.no_grad()
def objects_of_boxes(
    rois: Tensor, labels: Tensor | None, data_samples: Sequence
) -> Tensor:
    """Of boxes: the object of their label that they overlap most.

    Args:
        rois: (R, 5): index of the image in the batch, x1, y1, x2, y2.
        labels: (R,), a class, or another number for none.
        data_samples: B samples with their annotations.

    Returns:
        (R,), the number of the object in the batch, -1 for none.

    Raises:
        RuntimeError: the head shows no labels.
    """
    _check_labels(labels)
    boxes, classes, images = _objects(data_samples, rois.device)
    same = (labels[:, None] == classes) & (rois[:, :1] == images)
    return _best(_overlap(rois[:, 1:], boxes), same)


@torch.no_grad()
def objects_of_cells(
    head: nn.Module,
    levels: Sequence[Tensor],
    labels: Tensor | None,
    data_samples: Sequence,
) -> Tensor:
    """Of cells: the object of their label that their anchor overlaps most.

    A point has no area: of the objects of its label that hold it the
    smallest counts, or else the nearest.

    Args:
        head: The dense head, which knows where its cells are.
        levels: Its scores, (B, H, W, A, C) of each level.
        labels: (B R,), of the R cells of each image.
        data_samples: B samples with their annotations.

    Returns:
        (B R,), the number of the object in the batch, -1 for none.

    Raises:
        RuntimeError: the head shows no labels.
        TypeError: it does not say where its cells are.
    """
    _check_labels(labels)
    places = torch.cat(places_of(head, levels))
    images, cells = len(levels[0]), len(places)
    boxes, classes, owners = _objects(data_samples, labels.device)
    found = []
    for image, own in enumerate(labels.view(images, cells)):
        # Few cells have an object; the device is waited for.
        some = torch.isin(own, classes).nonzero().flatten()
        near = places[some]
        fit = _overlap if near.shape[1] == 4 else _inside
        same = (own[some, None] == classes) & (owners == image)
        groups = own.new_full((cells,), -1)
        groups[some] = _best(fit(near, boxes), same)
        found.append(groups)
    return torch.cat(found)


def annotated_boxes(data_samples: Sequence, device: torch.device) -> Tensor:
    """(R, 5): index of the image in the batch, x1, y1, x2, y2."""
    boxes, _, images = _objects(data_samples, device)
    return torch.cat([images[:, None].to(boxes), boxes], 1)


def _check_labels(labels: Tensor | None) -> None:
    check_shown(
        labels,
        "the comparison of an object's candidates",
        'Leave RankMimicLoss and BoxRankLoss out',
    )


def _objects(
    data_samples: Sequence, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (G, 4), classes (G,) and images (G,) of all objects."""
    boxes, classes, images = [], [], []
    for image, sample in enumerate(data_samples):
        instances = sample.gt_instances
        # MMDetection's box types hold a tensor.
        box = getattr(instances.bboxes, 'tensor', instances.bboxes)
        boxes.append(box.to(device).float())
        classes.append(instances.labels.to(device))
        images.append(torch.full_like(classes[-1], image))
    return torch.cat(boxes), torch.cat(classes), torch.cat(images)


def places_of(head: nn.Module, levels: Sequence[Tensor]) -> list[Tensor]:
    """Anchors (R, 4) or points (R, 2) of the cells of each level.

    Args:
        head: The dense head.
        levels: Its scores, (B, H, W, A, C) of each level.

    Raises:
        TypeError: it does not say where its cells are.
    """
    prior = prior_of(head)
    if not hasattr(prior, 'grid_priors'):
        raise TypeError(
            f'{type(head).__name__} does not say where its cells are (it has '
            'no prior_generator), so the objects that they are candidates of '
            'are not known: leave RankMimicLoss and BoxRankLoss out'
        )
    sizes = [tuple(level.shape[1:3]) for level in levels]
    return [
        getattr(each, 'tensor', each).float()
        for each in prior.grid_priors(sizes, device=levels[0].device)
    ]


def _best(fit: Tensor, allowed: Tensor) -> Tensor:
    """(N, G) -> (N,): the allowed object that fits best, -1 for none."""
    if not fit.shape[1]:
        return torch.full_like(fit[:, :0].sum(1), -1).long()
    best = fit.masked_fill(~allowed, -torch.inf).argmax(1)
    return best.masked_fill(~allowed.any(1), -1)


def _overlap(boxes: Tensor, objects: Tensor) -> Tensor:
    """IoU of each pair, (N, G)."""
    first = torch.maximum(boxes[:, None, :2], objects[:, :2])
    last = torch.minimum(boxes[:, None, 2:], objects[:, 2:])
    both = (last - first).clamp(min=0).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (boxes, objects)]
    return both / (areas[0][:, None] + areas[1] - both).clamp(min=1e-6)


def _inside(points: Tensor, objects: Tensor) -> Tensor:
    """How well a point lies in each object, (N, G).

    1 / (1 + area) inside, minus the distance to the centre outside.
    """
    x, y = points[:, None, 0], points[:, None, 1]
    x1, y1, x2, y2 = objects.unbind(1)
    inside = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    far = torch.hypot(x - (x1 + x2) / 2, y - (y1 + y2) / 2)
    return torch.where(inside, 1 / (1 + (x2 - x1) * (y2 - y1)), -far)
