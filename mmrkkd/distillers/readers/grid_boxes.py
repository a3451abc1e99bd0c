"""The boxes that dense heads say of their cells, decoded."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .heads import cells
from .loss_tap import by_class
from .objects import places_of


def _deltas(head: nn.Module, rows: Tensor, stride: float) -> Tensor:
    return rows


def _expected_distances(
    head: nn.Module, rows: Tensor, stride: float
) -> Tensor:
    # (..., 4 K): GFL's distances are the means of its distributions.
    means = head.integral(rows.flatten(0, -2)).view(*rows.shape[:-1], 4)
    return means * stride


def _distances(head: nn.Module, rows: Tensor, stride: float) -> Tensor:
    # In training FCOS gives them in strides, when it predicts in pixels.
    return rows * stride if head.norm_on_bbox else rows


# What the second output of a head becomes before its bbox_coder decodes it.
# Subclasses follow, but those whose outputs are others.
DECODERS = {
    'RetinaHead': _deltas,
    'RetinaSepBNHead': _deltas,
    'ATSSHead': _deltas,
    'GFLHead': _expected_distances,
    'FCOSHead': _distances,
    # In pixels in training too, whatever norm_on_bbox says.
    'AutoAssignHead': _deltas,
    'ATSSVLFusionHead': None,
    'TOODHead': None,
    'VFNetHead': None,
}


def cell_boxes(
    head: nn.Module, outputs: Sequence, levels: Sequence[Tensor]
) -> Tensor:
    """The boxes of all cells, (N, 4) in pixels, in the cells' order.

    Args:
        head: The head.
        outputs: What it put out on its training path.
        levels: Its scores, (B, H, W, A, C) of each level.
    """
    before = by_class(DECODERS, head)
    strides = [stride[0] for stride in head.prior_generator.strides]
    boxes = []
    for maps, level, stride, places in zip(
        outputs[1], levels, strides, places_of(head, levels), strict=True
    ):
        anchors = level.shape[3]
        rows = cells(maps, maps.shape[1] // anchors).flatten(1, 3).float()
        # GFL's means are a product, which autocast would round to pixels.
        with torch.autocast(rows.device.type, enabled=False):
            rows = before(head, rows, stride)
        if places.shape[1] == 4 and before is _expected_distances:
            places = head.anchor_center(places)
        repeated = places.repeat(len(rows), 1)
        decoded = head.bbox_coder.decode(repeated, rows.flatten(0, 1))
        decoded = getattr(decoded, 'tensor', decoded)
        boxes.append(decoded.view(len(rows), -1, 4))
    return torch.cat(boxes, 1).flatten(0, 1)
