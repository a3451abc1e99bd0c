"""Where the class scores of a dense head stand, and what they mean.

Heads are known by the names of their classes, and a subclass is what its
nearest known ancestor is: heads of users need nothing unless their forward
differs. :func:`register_head` is for those.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmrkkd.ops.checks import check_choice

from .base import ACTIVATIONS, Scores
from .loss_tap import is_sigmoid

Levels = list[Tensor]

CLASS = 'class'
JOINT = 'class and objectness'
MASK_CELLS = 'class of a mask cell'
# Scores of these are kept off 0 and 1 before their logit is taken.
PROBABILITY_EPS = 1e-6


@dataclass(frozen=True)
class HeadSpec:
    """One row of the table of heads.

    Args:
        read: ``read(outputs, head)`` finds the scores in what the head's
            forward returned: a list with (B, H, W, A, C) for each level.
            Defaults to the maps (B, A C, H, W) of the first output used.
        activation: 'sigmoid' or 'softmax'. Defaults to None: the head's
            ``use_sigmoid_cls`` or its classification loss says.
        meaning: What a score says. Two heads are compared only if it is
            the same. Defaults to 'class'.
        probabilities: Whether the head puts out probabilities; their logits
            are taken. Defaults to False.
        uses: Which of the outputs the scores are made of. Defaults to the
            first.
        refused: Why heads of this kind are not distilled; '' if they are.
    """

    read: Callable[[Sequence, nn.Module], Levels] | None = None
    activation: str | None = None
    meaning: str = CLASS
    probabilities: bool = False
    uses: tuple[int, ...] = (0,)
    refused: str = ''

    def levels(self, outputs: Sequence, head: nn.Module) -> Levels:
        """The scores of each level as the head gave them."""
        if self.read is not None:
            return self.read(outputs, head)
        return _all_maps(outputs[self.uses[0]], head)

    def sources(self, outputs: Sequence) -> list[Tensor]:
        """The tensors that the scores are made of, as they left the head."""
        return [maps for index in self.uses for maps in outputs[index]]

    def logits(self, scores: Tensor) -> Tensor:
        """Scores as the head gave them -> logits."""
        if not self.probabilities:
            return scores
        return torch.logit(scores.float(), eps=PROBABILITY_EPS)


def cells(maps: Tensor, channels: int) -> Tensor:
    """(B, A C, H, W) -> (B, H, W, A, C), without a copy."""
    return maps.unflatten(1, (-1, channels)).permute(0, 3, 4, 1, 2)


def joint_logit(scores: Tensor, objectness: Tensor) -> Tensor:
    """The logit of sigmoid(scores) * sigmoid(objectness).

    ::

        logit(s(a) s(b)) = a + b - log(1 + e^a + e^b)

    Args:
        scores: (..., C).
        objectness: (..., 1).

    Returns:
        (..., C), float32 or wider.
    """
    dtype = torch.promote_types(scores.dtype, torch.float32)
    scores, objectness = scores.to(dtype), objectness.to(dtype)
    either = torch.logaddexp(scores, objectness)
    return scores + objectness - torch.nn.functional.softplus(either)


def channels_of(head: nn.Module) -> int:
    """The number of a head's scores in a cell, background included."""
    return int(getattr(head, 'cls_out_channels', head.num_classes))


def _all_maps(outputs: Sequence[Tensor], head: nn.Module) -> Levels:
    return [cells(maps, channels_of(head)) for maps in outputs]


def _gated(outputs: Sequence, head: nn.Module) -> Levels:
    scores, _, objectness = outputs[:3]
    return [
        joint_logit(one, cells(gate, 1))
        for one, gate in zip(_all_maps(scores, head), objectness, strict=True)
    ]


def _yolo_v3(outputs: Sequence, head: nn.Module) -> Levels:
    # Of an anchor: four of the box, the objectness, the classes.
    levels = [cells(maps, head.num_classes + 5) for maps in outputs[0]]
    return [joint_logit(each[..., 5:], each[..., 4:5]) for each in levels]


def _two_corners(outputs: Sequence, head: nn.Module) -> Levels:
    pairs = zip(outputs[0], outputs[1], strict=True)
    return _all_maps([torch.cat(pair, 1) for pair in pairs], head)


def _refused(why: str) -> HeadSpec:
    return HeadSpec(refused=why)


_NO_CLASSES = 'it proposes boxes and knows no classes'
TEXT = (
    'its scores are of the tokens of a text, not of classes; it can be a '
    'teacher'
)

BASE = 'BaseDenseHead'
HEADS: dict[str, HeadSpec] = {
    BASE: HeadSpec(),
    'AutoAssignHead': HeadSpec(_gated, 'sigmoid', JOINT, uses=(0, 2)),
    'CenterNetHead': HeadSpec(
        None, 'sigmoid', 'heat map of centres', probabilities=True
    ),
    'CenterNetUpdateHead': HeadSpec(None, 'sigmoid', 'heat map of centres'),
    'CornerHead': HeadSpec(
        _two_corners, 'sigmoid', 'heat maps of corners', uses=(0, 1)
    ),
    'DecoupledSOLOHead': HeadSpec(None, 'sigmoid', MASK_CELLS, uses=(2,)),
    'SOLOHead': HeadSpec(None, 'sigmoid', MASK_CELLS, uses=(1,)),
    'TOODHead': HeadSpec(None, 'sigmoid', probabilities=True),
    'YOLOFHead': HeadSpec(None, 'sigmoid', JOINT),
    'YOLOV3Head': HeadSpec(_yolo_v3, 'sigmoid', JOINT),
    'YOLOXHead': HeadSpec(_gated, 'sigmoid', JOINT, uses=(0, 2)),
    'ATSSVLFusionHead': HeadSpec(None, 'sigmoid', refused=TEXT),
    'CascadeRPNHead': _refused(_NO_CLASSES),
    'CLRHead': _refused('it finds lanes, which have no classes'),
    'GARPNHead': _refused(_NO_CLASSES),
    'RPNHead': _refused(_NO_CLASSES),
}


def register_head(
    head: str | type,
    read: Callable[[Sequence, nn.Module], Levels] | None = None,
    activation: str | None = None,
    meaning: str = CLASS,
    probabilities: bool = False,
    uses: Sequence[int] = (0,),
) -> None:
    """Makes a dense head known whose forward differs from MMDetection's.

    ::

        def read(outputs, head):
            boxes, scores = outputs  # scores: maps (B, C, H, W), by level
            return [cells(maps, head.num_classes) for maps in scores]


        register_head('MyHead', read, activation='sigmoid', uses=(1,))

    Heads derived from MMDetection's, with the same outputs, are known as
    they are.

    Args:
        head: The head's class, or its name; its subclasses follow it.
        read: See :class:`HeadSpec`. Defaults to the first output.
        activation: See :class:`HeadSpec`. Defaults to what the head says.
        meaning: See :class:`HeadSpec`. Defaults to 'class'.
        probabilities: See :class:`HeadSpec`. Defaults to False.
        uses: See :class:`HeadSpec`; above it is ``(1,)``. Defaults to the
            first output.

    Raises:
        TypeError: ``head`` is no class or name, or ``read`` no function.
        ValueError: the activation is unknown.
    """
    name = check_registered(head, read)
    if activation is not None:
        check_choice('activation', activation, ACTIVATIONS)
    HEADS[name] = HeadSpec(
        read, activation, meaning, probabilities, tuple(uses)
    )


def check_registered(head: object, read: object) -> str:
    """The name of a head that a user makes known.

    Raises:
        TypeError: ``head`` is no class or name, or ``read`` no function.
    """
    name = head if isinstance(head, str) else getattr(head, '__name__', None)
    if not isinstance(name, str) or not name:
        raise TypeError(
            f'head must be the class of a head or its name, got {head!r}'
        )
    if read is not None and not callable(read):
        raise TypeError(
            'read must be a function of the outputs and the head, got '
            f'{read!r}'
        )
    return name


def spec_of(head: nn.Module | None) -> HeadSpec | None:
    """What the table says of a head; None if it knows no ancestor of it.

    The base of all says nothing of what a head puts out: what stands on it
    alone is known where it is MMDetection's own.
    """
    own = False
    for kind in type(head).__mro__:
        if kind.__name__ == BASE and not own:
            return None
        if kind.__name__ in HEADS:
            return HEADS[kind.__name__]
        own |= kind.__module__.startswith('mmdet.')
    return None


def unknown_head(model: nn.Module) -> nn.Module | None:
    """A dense head that :func:`register_head` has to make known, or None."""
    for name in ('bbox_head', 'mask_head'):
        head = getattr(model, name, None)
        names = {kind.__name__ for kind in type(head).__mro__}
        if BASE in names and spec_of(head) is None:
            return head
    return None


def dense_head(model: nn.Module) -> nn.Module | None:
    """The dense head that classifies, or None if a model has none."""
    if hasattr(model, 'roi_head'):
        return None
    for name in ('bbox_head', 'mask_head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.Module) and spec_of(head) is not None:
            return head
    return None


def scores_of(head: nn.Module) -> Scores:
    """What the class scores of a known head mean.

    Raises:
        TypeError: the head does not say how its scores become
            probabilities.
    """
    activation = spec_of(head).activation
    if activation is None:
        sigmoid = getattr(head, 'use_sigmoid_cls', None)
        if sigmoid is None and isinstance(
            getattr(head, 'loss_cls', None), nn.Module
        ):
            sigmoid = is_sigmoid(head.loss_cls)
        if sigmoid is None:
            raise TypeError(
                f'{type(head).__name__} does not say whether its class scores '
                'are for a sigmoid or a softmax; say it once by '
                'mmrkkd.distillers.register_head('
                f"{type(head).__name__!r}, activation='sigmoid')"
            )
        activation = 'sigmoid' if sigmoid else 'softmax'
    return Scores(
        channels_of(head), activation, background=activation == 'softmax'
    )


def grid_of(head: nn.Module) -> tuple[list, list] | None:
    """The strides and the anchors a cell of each level, if a head says so."""
    if hasattr(head, 'num_grids'):
        return [f'{n} x {n}' for n in head.num_grids], [1] * len(
            head.num_grids
        )
    prior = prior_of(head)
    if not hasattr(prior, 'num_base_priors'):
        return None
    strides = [
        each[0] if isinstance(each, (tuple, list)) else each
        for each in prior.strides
    ]
    return strides, list(prior.num_base_priors)


def anchors_of(head: nn.Module) -> list[Tensor] | None:
    """The boxes on a cell of each level, (A, 4), if a head has some."""
    return getattr(prior_of(head), 'base_anchors', None)


def prior_of(head: nn.Module) -> object | None:
    """What says where the cells of a head are, None where nothing does."""
    prior = getattr(head, 'prior_generator', None)
    return getattr(head, 'square_anchor_generator', prior)
