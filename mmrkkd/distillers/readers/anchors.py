"""The anchors that a detector's head lays on the cells of its levels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorReader:
    """Lays a head's anchors on the cells of given layers.

    The head is the RPN of a two-stage detector, else the dense head. A
    layer has the anchors of the level whose stride it has: of a side that is
    no multiple of the stride, a part of a cell may count as one.

    Args:
        model: The detector.
        owner: 'student' or 'teacher', for messages.
        shapes: Of each layer on an empty image, (1, C, H, W).
        size: Side of that image in pixels.

    Raises:
        ValueError: the model has no anchors, none of a layer's stride, or
            several whose strides give as many cells.
    """

    def __init__(
        self,
        model: nn.Module,
        owner: str,
        shapes: Sequence[Sequence[int]],
        size: int,
    ) -> None:
        self.generator = anchor_generator(model, owner)
        strides = [tuple(stride) for stride in self.generator.strides]
        self.levels = []
        for *_, height, width in shapes:
            levels = [
                level
                for level, (across, down) in enumerate(strides)
                if abs(size / across - width) < 1
                and abs(size / down - height) < 1
            ]
            if len(levels) != 1:
                found = 'several' if levels else 'none'
                raise ValueError(
                    f"the {owner}'s anchors stand on levels of the strides "
                    f'{strides}, and {found} of them may be that of a layer '
                    f'asked for, which has {height} x {width} cells of an '
                    f'image of {size} x {size}: name layers that the anchors '
                    'stand on, or set feature_size to a larger side'
                )
            self.levels += levels

    def read(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The anchors of each layer, (H, W, A, 4), in pixels.

        Args:
            features: (B, C, H, W), of each layer.
        """
        anchors = []
        for level, value in zip(self.levels, features, strict=True):
            size = tuple(value.shape[-2:])
            boxes = self.generator.single_level_grid_priors(
                size, level, dtype=torch.float32, device=value.device
            )
            boxes = getattr(boxes, 'tensor', boxes)
            anchors.append(boxes.view(*size, -1, 4))
        return anchors


def anchor_generator(model: nn.Module, owner: str) -> object:
    """What lays the anchors of a detector.

    Args:
        model: The detector.
        owner: 'student' or 'teacher', for messages.

    Raises:
        ValueError: it has none.
    """
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        generator = getattr(head, 'prior_generator', None)
        # Generators of points have no boxes to start from.
        if hasattr(generator, 'base_anchors'):
            return generator
    raise ValueError(
        f'the {owner} {type(model).__name__} has no anchors: neither its '
        'rpn_head nor its bbox_head has a prior_generator of boxes. A loss '
        'that needs anchors cannot distil it'
    )
