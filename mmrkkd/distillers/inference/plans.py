"""The ways to reduce a teacher's precision, and what they go by."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import nn

from ..readers import Match
from ..unused import skip, unused_layers
from .parts import find_parts, scores_by
from .reduced import Undo, fold, foldable, keep_float32, narrow
from .roi_align import use_tables
from .trace import LayerTrace

# What a layer raises that has no kernel for a precision, or mixes two.
FAILURES = (RuntimeError, TypeError)

Read = Callable[[], list[Match]]


class Plan(NamedTuple):
    """One way to reduce the precision of a teacher.

    Args:
        heads: Of its heads too, but for the layers that stay exact.
        autocast: Leave the choice to autocast, layer by layer.
    """

    heads: bool
    autocast: bool

    def __str__(self) -> str:
        parts = 'backbone, neck and heads' if self.heads else 'backbone, neck'
        return parts + (', with autocast' if self.autocast else '')

    def apply(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        trace: LayerTrace,
        kept: Collection[nn.Module],
        unused: Collection[nn.Module],
        exact: Collection[nn.Module],
    ) -> None:
        """Changes the teacher; :class:`Undo`, made before, is the way back.

        Args:
            model: The teacher, in float32.
            dtype: What it is to compute in.
            trace: How its layers joined on the first batch.
            kept: Modules whose output or input is read.
            unused: Layers that need not run.
            exact: Layers of the heads that stay in float32.
        """
        parts = find_parts(model, self.heads)
        narrowed = {
            module
            for part in (*parts.body, *parts.heads)
            for module in part.modules()
        }
        for conv, norm in foldable(trace.pairs(), {*kept, *exact}):
            if {conv, norm} <= narrowed:
                fold(conv, norm)
        for part, leaves in parts.body.items():
            narrow(part, dtype, widens=leaves, autocast=self.autocast)
        for head in parts.heads:
            narrow(
                head,
                dtype,
                widens=True,
                autocast=self.autocast,
                exact_layers=exact,
            )
        for layer in unused:
            skip(layer)
        use_tables(model)


# The fastest first.
PLANS = (
    Plan(True, False),
    Plan(False, False),
    Plan(True, True),
    Plan(False, True),
)


def exact_matches(
    model: nn.Module, read: Read, whole_heads: bool, exact_heads: bool
) -> tuple[LayerTrace, Sequence[Match]]:
    """What the float32 teacher says, whatever autocast is around it.

    Heads that stay as they are take part in an autocast as ever.

    Args:
        model: The teacher.
        read: Reads the matches of a batch with it.
        whole_heads: Whether its heads keep every layer.
        exact_heads: Whether they stay as they are.

    Returns:
        How its layers joined, and the matches.
    """
    parts, trace = find_parts(model, not whole_heads), LayerTrace()
    undo = Undo(model)
    try:
        for part in (*parts.body, *([] if exact_heads else parts.heads)):
            keep_float32(part)
        if exact_heads:
            # On its first read a reader looks at the layers of heads that it
            # crosses: how they join is seen after that.
            read()
        with trace.watching(parts.body, parts.heads):
            return trace, read()
    finally:
        undo()


def layers_unread(
    model: nn.Module, trace: LayerTrace, kept: Collection[nn.Module]
) -> set[nn.Module]:
    """Layers whose numbers no loss reads, none where it reads inside.

    Args:
        model: The teacher, in float32.
        trace: How its layers joined, and what its heads were given.
        kept: Modules whose output or input is read.
    """
    found: set[nn.Module] = set()
    for head, inputs in trace.inputs.items():
        scores = scores_by(model, head)
        if scores is None or kept.intersection(head.modules()):
            continue
        few = [each[:2] for each in inputs]
        # Heads that take more than features, or cannot be differentiated.
        with suppress(*FAILURES):
            found |= unused_layers(head, scores, few)
    return found
