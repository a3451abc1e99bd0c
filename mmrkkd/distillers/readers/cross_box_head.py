"""Cross-head distillation of boxes: one head, on the features of the other."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from .box_heads import mean_logits
from .cross_head import CrossHead
from .loss_tap import arguments


class Call(NamedTuple):
    """A call of a box head, and what went into the layer."""

    args: tuple
    kwargs: dict
    features: Tensor  # (R, channels, height, width), or (R, channels).
    scores: Tensor  # (R, channels)
    entered: list[Tensor]


class BoxCross(CrossHead):
    """As :class:`CrossHead`, for box heads: what goes in stays as it is.

    With 'shared_fcs.0' the features that the student pooled in its boxes go
    through the whole of the teacher's box head, as in the authors' code for
    Faster R-CNN, which hands them on without other means and deviations.

    Args:
        layer: Path of the layer in the box heads of both, for instance
            'shared_fcs.0', the first fully connected layer.
    """

    advice = (
        "'shared_fcs.0' is the first layer of Faster R-CNN's box head, "
        "'shared_fcs.1', behind it, fits unlike necks"
    )
    axes = 'boxes, channels and so on'

    def unified(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :meth:`CrossHead.unified`."""
        return student.to(teacher.dtype)

    @contextmanager
    def calls(self, *heads: nn.Module) -> Iterator[list[Call]]:
        """Notes the calls of box heads inside the block."""
        calls = []
        with ExitStack() as stack:
            for head in heads:
                entered = stack.enter_context(self.tapped(head))

                def see(
                    module: nn.Module,
                    args: tuple,
                    kwargs: dict,
                    output: Sequence,
                    entered: list[Tensor] = entered,
                ) -> None:
                    features, *_ = arguments(module, args, kwargs)
                    calls.append(
                        Call(args, kwargs, features, output[0], entered[:])
                    )
                    entered.clear()

                stack.enter_context(
                    head.register_forward_hook(see, with_kwargs=True)
                )
            yield calls

    def outputs(
        self, student: Call, teacher: Sequence[tuple[nn.Module, Call]]
    ) -> tuple[Tensor, Tensor | None]:
        """What the teacher's box heads make of the student's features.

        Args:
            student: The call of the student's head, with gradient.
            teacher: The teacher's heads, each with its call on the same
                boxes; of several the mean is taken.

        Returns:
            Logits, (R, C_t), with gradient to the student alone; and how
            the boxes are moved, the first head's second output.

        Raises:
            ValueError: the layer runs more or less often than once, or its
                input is not alike in both, or no score depends on it.
        """
        outputs = []
        for head, call in teacher:
            for owner, seen in (('student', student), ('teacher', call)):
                if len(seen.entered) != 1:
                    raise ValueError(
                        f"cross_layer={self.layer!r}: in the {owner}'s box "
                        f'head it runs {len(seen.entered)} times for a box; '
                        f'give a layer that runs once. {self.advice}'
                    )
            with self.crossed(head, student.entered, call.entered):
                outputs.append(head(*call.args, **call.kwargs))
        crossed = mean_logits(teacher[0][0], [each[0] for each in outputs])
        self.check_way(student.entered[0], crossed, teacher[0][0], 'fc_cls')
        return crossed, outputs[0][1] if len(outputs[0]) > 1 else None
