"""FGD: objects and background apart, and the relations of all cells."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrkkd.losses.schedule import build_schedule
from mmrkkd.ops.checks import check_flag, check_positive

from .base import FeaturePair, Shape
from .map_loss import MapLoss, whole_cells
from .object_masks import cell_ranges, inside, object_boxes


class FGDLoss(MapLoss):
    """Focal and global distillation of a detector's levels.

    With T the temperature, the attention of the cells and of the channels
    of an image's map (C, H, W), and masks of its annotated boxes::

        S   = H W softmax over the cells of    mean_c |f| / T
        A   = C   softmax over the channels of mean_cells |f| / T
        m_f = max over the boxes on a cell of 1 / (cells of the box), else 0
        m_b = 1 / (cells without a box) where no box is, else 0

        foreground = sum m_f S_t A_t (f_s - f_t)^2 / B
        background = sum m_b S_t A_t (f_s - f_t)^2 / B
        attention  = (sum |A_s - A_t| + sum |S_s - S_t|) / B
        relation   = sum (g_s(f_s) - g_t(f_t))^2 / B

    summed over the levels, each times its weight and w. g is a learned
    block of global context (GCNet), one for each side, that starts as the
    identity; the teacher's is trained too, as released. Where the channels
    differ a 1 x 1 convolution joins them first; of unlike strides the
    student's map is interpolated to the teacher's grid.

    A box covers the cells that it touches, floor(x1) to ceil(x2), half
    open, of a grid that lies on the padded input. The released code,
    ``mend_slips=False``,

    1. stretches the grid over the image without its padding, so that in a
       padded batch the masks lie beside their objects;
    2. counts the row and the column after the last one too, and what lies
       outside the map in the number of a box's cells.

    Args:
        student_layers: See :class:`FeatureLoss`; levels. The published ones
            are ``'neck[0]'`` to ``'neck[3]'`` for two-stage detectors and
            all five for dense ones.
        teacher_layers: See :class:`FeatureLoss`.
        loss_weight: w >= 0, or a schedule, of all terms. Defaults to 1.0.
        foreground_weight: alpha >= 0, or a schedule. Defaults to 5e-5, as
            released for two-stage detectors with the three below. The sums
            grow with the maps, so that weights belong to a kind of
            detector: RetinaNet and GFL have (1e-3, 5e-4, 5e-4, 5e-6),
            RepPoints and FCOS (1.6e-3, 8e-4, 8e-4, 8e-6).
        background_weight: beta >= 0, or a schedule. Defaults to 2.5e-5.
        attention_weight: gamma >= 0, or a schedule. Defaults to 5e-5.
        relation_weight: lambda >= 0, or a schedule. Defaults to 5e-7.
        temperature: T > 0. Defaults to 0.5; FCOS has 0.8.
        mend_slips: Masks where the objects are. Defaults to True.

    Log keys: ``loss_fgd_foreground``, ``loss_fgd_background``,
    ``loss_fgd_attention``, ``loss_fgd_relation``.

    Source: Yang et al., arXiv:2111.11837, eq. 2 to 11, and the released
        code.
    """

    def __init__(
        self,
        student_layers: str | Sequence[str],
        teacher_layers: str | Sequence[str] | None = None,
        loss_weight: float | dict = 1.0,
        foreground_weight: float | dict = 5e-5,
        background_weight: float | dict = 2.5e-5,
        attention_weight: float | dict = 5e-5,
        relation_weight: float | dict = 5e-7,
        temperature: float = 0.5,
        mend_slips: bool = True,
    ) -> None:
        super().__init__(student_layers, teacher_layers, loss_weight)
        weights = dict(
            foreground=foreground_weight,
            background=background_weight,
            attention=attention_weight,
            relation=relation_weight,
        )
        self.weights = {
            name: build_schedule(f'{name}_weight', value)
            for name, value in weights.items()
        }
        self.temperature = check_positive('temperature', temperature)
        self.mend_slips = check_flag('mend_slips', mend_slips)
        self.student_context = nn.ModuleList()
        self.teacher_context = nn.ModuleList()

    def connect(
        self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape]
    ) -> None:
        """See :meth:`FeatureLoss.connect`."""
        super().connect(student_shapes, teacher_shapes)
        self.student_context, self.teacher_context = (
            nn.ModuleList(GlobalContext(shape[1]) for shape in teacher_shapes)
            for _ in range(2)
        )

    def per_batch(self, pair: FeaturePair) -> dict[str, Tensor]:
        """See :meth:`FeatureLoss.per_batch`."""
        boxes = object_boxes('FGDLoss', pair)
        totals = dict.fromkeys(self.weights, 0.0)
        for level, (student, teacher) in enumerate(self.joined(pair)):
            sides = self.connectors[level].sides(pair.student[level])
            masks = [
                self._masks(boxes[image], pair, image, sides)
                for image in range(len(boxes))
            ]
            terms = self._terms(level, student, teacher, masks)
            for name, value in terms.items():
                totals[name] = totals[name] + value / len(student)
        weight = self.now(self.loss_weight)
        return {
            f'loss_fgd_{name}': weight * self.now(self.weights[name]) * total
            for name, total in totals.items()
        }

    def _terms(
        self,
        level: int,
        student: Tensor,
        teacher: Tensor,
        masks: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """The four sums of a level, over the images."""
        cells_t, channels_t = self._attention(teacher)
        cells_s, channels_s = self._attention(student)
        height, width = student.shape[2:]
        foreground = torch.stack(masks)[:, :height, :width].to(student.dtype)
        free = (foreground == 0).to(student.dtype)
        background = free / free.sum((1, 2), keepdim=True).clamp(min=1)
        error = channels_t[..., None, None] * (student - teacher).square()
        error = cells_t * error.sum(1)
        relation = self.student_context[level](student) - self.teacher_context[
            level
        ](teacher)
        return dict(
            foreground=(foreground * error).sum(),
            background=(background * error).sum(),
            attention=(channels_s - channels_t).abs().sum()
            + (cells_s - cells_t).abs().sum(),
            relation=relation.square().sum(),
        )

    def _attention(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> of the cells (B, H, W), of the channels (B, C)."""
        energy = features.abs() / self.temperature
        cells = energy.mean(1).flatten(1).softmax(1)
        channels = energy.mean((2, 3)).softmax(1)
        return (
            (cells.shape[1] * cells).view(len(cells), *features.shape[2:]),
            channels.shape[1] * channels,
        )

    def _masks(
        self, boxes: Tensor, pair: FeaturePair, image: int, sides: tuple
    ) -> Tensor:
        """An image's m_f on a grid that is so many cells high and wide."""
        grid = whole_cells(sides)
        if self.mend_slips:
            ranges = cell_ranges(boxes, pair.input_shape, sides)
            covered = inside(ranges, grid)
            cells = covered.sum((1, 2))
        else:
            shape = pair.samples[image].metainfo['img_shape'][:2]
            ranges = cell_ranges(boxes, shape, sides)
            ranges[:, 2:] += 1
            covered = inside(ranges, grid)
            cells = (ranges[:, 2:] - ranges[:, :2]).prod(1)
        shares = covered / cells.clamp(min=1)[:, None, None]
        return torch.cat([shares, shares.new_zeros(1, *grid)]).amax(0)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        weights = ', '.join(f'{k}={v}' for k, v in self.weights.items())
        return (
            f'{super().extra_repr()}, {weights}, '
            f'temperature={self.temperature:g}, mend_slips={self.mend_slips}'
        )


class GlobalContext(nn.Module):
    """Adds to every cell the same: a pooled context, transformed.

    Starts as the identity.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.score = nn.Conv2d(channels, 1, 1)
        nn.init.kaiming_normal_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.transform = nn.Sequential(
            nn.Linear(channels, inner),
            nn.LayerNorm(inner),
            nn.ReLU(),
            nn.Linear(inner, channels),
        )
        nn.init.zeros_(self.transform[-1].weight)
        nn.init.zeros_(self.transform[-1].bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        share = self.score(features).flatten(2).softmax(-1)
        context = (features.flatten(2) * share).sum(-1)
        return features + self.transform(context)[..., None, None]
