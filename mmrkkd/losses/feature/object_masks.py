"""Which cells of a map belong to annotated objects."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import FeaturePair

# The finest level of a pyramid has 200,000 anchors for an image of COCO.
BOXES_AT_ONCE = 16


def object_boxes(owner: str, pair: FeaturePair) -> list[Tensor]:
    """The annotated boxes of each image, (G, 4), in pixels of the input.

    Args:
        owner: The loss, for the message.
        pair: The features.

    Raises:
        ValueError: there are no annotations for every image, or the size of
            the input is not known.
    """
    objects = [
        getattr(sample, 'gt_instances', None) for sample in pair.samples
    ]
    boxes = [getattr(each, 'bboxes', None) for each in objects]
    if len(boxes) != len(pair.student[0]) or any(b is None for b in boxes):
        raise ValueError(
            f"{owner} needs the boxes of every image's objects, "
            'FeaturePair.samples with gt_instances.bboxes: it is a loss for '
            f'detectors; got {len(pair.samples)} samples, '
            f'{sum(b is not None for b in boxes)} of them with boxes'
        )
    if pair.input_shape is None:
        raise ValueError(
            f'{owner} needs the size of the input that the boxes are in: set '
            'FeaturePair.input_shape to its height and width in pixels'
        )
    device = pair.student[0].device
    # MMDetection's own type of boxes holds a tensor.
    return [getattr(each, 'tensor', each).to(device).float() for each in boxes]


def cell_ranges(
    boxes: Tensor, image: Sequence[int], grid: Sequence[float]
) -> Tensor:
    """First and last cells of boxes on a grid that covers an image.

    Args:
        boxes: (G, 4), x1, y1, x2, y2 in pixels.
        image: (height, width) in pixels.
        grid: (height, width) in cells, whole or not.

    Returns:
        (G, 4), left, top, right, bottom: the cells from floor(x1) to
        ceil(x2) of the box in cells, int64. Half open, right and bottom are
        the first cells outside.
    """
    # The product first: it is exact, and so is then a box on cell borders.
    left, right = (boxes[:, 0::2] * grid[1] / image[1]).unbind(1)
    top, bottom = (boxes[:, 1::2] * grid[0] / image[0]).unbind(1)
    return torch.stack(
        [left.floor(), top.floor(), right.ceil(), bottom.ceil()], 1
    ).long()


def inside(ranges: Tensor, grid: Sequence[int]) -> Tensor:
    """Half open cell ranges, (G, 4) -> bool, (G, H, W)."""
    rows = torch.arange(grid[0], device=ranges.device)[None, :, None]
    columns = torch.arange(grid[1], device=ranges.device)[None, None]
    left, top, right, bottom = ranges.T[..., None, None]
    return (
        (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    )


def near_anchors(anchors: Tensor, boxes: Tensor, share: float) -> Tensor:
    """Cells with an anchor that overlaps a box nearly as the best one does.

    Args:
        anchors: (H, W, A, 4), x1, y1, x2, y2 in pixels.
        boxes: (G, 4).
        share: Of the highest IoU of a box with any of these anchors, which
            an anchor's must be above.

    Returns:
        Bool, (H, W), the union over the boxes; False where a box meets no
        anchor.
    """
    cells = anchors.reshape(-1, 4)
    found = torch.zeros(len(cells), dtype=torch.bool, device=cells.device)
    for part in boxes.split(BOXES_AT_ONCE):
        overlaps = _iou(cells, part)
        found |= (overlaps > share * overlaps.amax(0)).any(1)
    return found.view(anchors.shape[:3]).any(2)


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """(M, 4), (G, 4) -> (M, G)."""
    left, top, right, bottom = first.T[..., None]
    x1, y1, x2, y2 = second.T
    width = torch.minimum(right, x2) - torch.maximum(left, x1)
    height = torch.minimum(bottom, y2) - torch.maximum(top, y1)
    common = width.clamp(min=0) * height.clamp(min=0)
    areas = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1)
    return common / (areas - common)
