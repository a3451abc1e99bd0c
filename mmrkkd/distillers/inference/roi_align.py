"""RoI Align of a frozen teacher on a CPU, all channels of a place at once.

MMCV's kernel for the CPU reads its maps channel by channel, four values for
every sampled point. Here each bin of a box is a weighted sum of rows of a
table with a row of channels for each place, which
:func:`torch.nn.functional.embedding_bag` adds up; points that share a place
share its row.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

KINDS = ('RoIAlign',)


class Axis(NamedTuple):
    """Along one axis, what each of the P bins of R boxes is a sum of.

    Args:
        first: (R, P), the first cell.
        cells: (R, P), how many, at least one.
        weights: (R, P, K), of the cells, padded by 0.
    """

    first: Tensor
    cells: Tensor
    weights: Tensor


def use_tables(model: nn.Module) -> None:
    """Lets the RoI Align layers of a frozen model run in this way.

    Args:
        model: The model. Layers of other kinds, and those that take a
            maximum, stay.
    """
    for layer in model.modules():
        if type(layer).__name__ in KINDS and layer.pool_mode == 'avg':
            layer.forward = partial(_forward, layer)


def _forward(layer: nn.Module, maps: Tensor, rois: Tensor) -> Tensor:
    on_cpu = maps.device.type == 'cpu' and maps.dtype == torch.float32
    if not on_cpu or torch.is_grad_enabled() or not len(rois):
        return type(layer).forward(layer, maps, rois)
    return roi_align(
        maps,
        rois,
        layer.output_size,
        layer.spatial_scale,
        layer.sampling_ratio,
        layer.aligned,
    )


def roi_align(
    maps: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Averages of bilinear samples in the bins of boxes.

    Args:
        maps: (N, C, H, W), float32, on the CPU.
        rois: (R, 5): image, x1, y1, x2, y2. R >= 1.
        output_size: (P, Q), the bins of a box.
        spatial_scale: Cells a pixel. Defaults to 1.0.
        sampling_ratio: Samples of a bin along an axis; 0: one a cell.
            Defaults to 0.
        aligned: Whether pixel i is at i + 0.5. Defaults to True.

    Returns:
        (R, C, P, Q).

    Source: He et al. (Mask R-CNN), arXiv:1703.06870; conventions of MMCV's
        ``roi_align``.
    """
    channels, height, width = maps.shape[1:]
    corners = rois[:, 1:] * spatial_scale - 0.5 * aligned
    sizes = corners[:, 2:] - corners[:, :2]
    if not aligned:
        sizes = sizes.clamp(min=1)
    x, y = (
        _axis(corners[:, i], sizes[:, i], bins, cells, sampling_ratio)
        for i, bins, cells in (
            (0, output_size[1], width),
            (1, output_size[0], height),
        )
    )
    # Rows of places in the table, for each bin: (R, P, Q) of (cells, cells).
    counts = (y.cells[:, :, None] * x.cells[:, None]).flatten()
    starts = counts.cumsum(0) - counts
    box_bin = torch.repeat_interleave(counts)
    within = torch.arange(len(box_bin)) - starts[box_bin]
    rows, columns = output_size
    box_row = box_bin // columns
    box_column = box_row // rows * columns + box_bin % columns
    step = x.cells.flatten()[box_column]
    down = within // step
    right = within - down * step
    weight = (
        y.weights.flatten(0, 1)[box_row, down]
        * x.weights.flatten(0, 1)[box_column, right]
    )
    image = rois[:, 0].long()[:, None] * height
    place = ((y.first + image).flatten()[box_row] + down) * width + (
        x.first.flatten()[box_column] + right
    )
    table = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    sums = embedding_bag(
        place, table, starts, mode='sum', per_sample_weights=weight
    )
    return sums.reshape(len(rois), rows, columns, channels).permute(0, 3, 1, 2)


def _axis(
    start: Tensor, size: Tensor, bins: int, cells: int, sampling_ratio: int
) -> Axis:
    """The cells that the bins of boxes are made of along one axis.

    Args:
        start: (R,), where a box begins, in cells.
        size: (R,), its length.
        bins: P.
        cells: How many cells there are.
        sampling_ratio: See :func:`roi_align`.
    """
    samples = torch.full_like(size, sampling_ratio)
    if sampling_ratio <= 0:
        samples = (size / bins).ceil().clamp(min=0)
    number = torch.arange(max(int(samples.max()), 1), dtype=size.dtype)
    counted = number < samples[:, None]
    step = (size / bins)[:, None] / samples.clamp(min=1)[:, None]
    inside = start[:, None] + (number + 0.5) * step
    at = (
        inside[:, None]
        + (torch.arange(bins, dtype=size.dtype) * (size / bins)[:, None])[
            ..., None
        ]
    )
    counted = counted[:, None] & (at >= -1) & (at <= cells)
    at = at.clamp(0, cells - 1)
    low = at.floor().clamp(max=max(cells - 2, 0))
    upper = at - low
    share = counted / samples.clamp(min=1)[:, None, None]
    # Points that do not count lie in the first cell of those that do.
    low = low.long()
    first = (
        low.masked_fill(~counted, cells).amin(2).clamp(max=max(cells - 2, 0))
    )
    offset = (low - first[..., None]).masked_fill(~counted, 0)
    width = int(offset.max()) + 2
    weights = share.new_zeros(*offset.shape[:2], width)
    weights.scatter_add_(2, offset, share * (1 - upper))
    weights.scatter_add_(2, offset + 1, share * upper)
    used = offset.amax(2) + 2
    return Axis(first, used.clamp(max=cells), weights)
