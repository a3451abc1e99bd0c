"""What a dense head puts out on the way to its own losses."""

from collections.abc import Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
)

from torch import Tensor, nn

from .method_tap import Call, noted_calls
from .targets import LOSSES, GridLossTap

# FSAF's, which silences the positives of all levels but the best.
REWEIGHTS = 'reweight_loss_single'


class GridTap:
    """Notes what a dense head put out, and what its loss was called with."""

    def __init__(self) -> None:
        self.features: Sequence[Tensor] = ()
        self.outputs: Sequence | None = None
        self.crossing: list[list[Tensor]] = []
        self.loss = GridLossTap()

    def see_outputs(
        self, module: nn.Module, args: tuple, outputs: Sequence
    ) -> None:
        """Hook after the head: forward(features) -> outputs."""
        self.features, self.outputs = args[0], outputs


@contextmanager
def tapped_head(head: nn.Module) -> Iterator[GridTap]:
    """Notes what a dense head does inside the block.

    Args:
        head: The student's.

    Yields:
        The tap. Positives that the head has given up are known after the
        block.
    """
    tap = GridTap()
    with ExitStack() as stack:
        stack.enter_context(head.register_forward_hook(tap.see_outputs))
        for name in LOSSES:
            loss = getattr(head, name, None)
            if isinstance(loss, nn.Module):
                stack.enter_context(
                    loss.register_forward_pre_hook(
                        tap.loss.see, with_kwargs=True
                    )
                )
        with _kept_levels(head) as levels:
            yield tap
        tap.loss.give_up(levels)


def _kept_levels(head: nn.Module) -> AbstractContextManager[list[Call]]:
    """Notes which positives of each level FSAF keeps."""
    if hasattr(head, REWEIGHTS):
        return noted_calls(head, REWEIGHTS)
    return nullcontext([])
