"""Cross-head distillation: the student's features in the teacher's head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Added to a deviation before it divides.
EPS = 1e-6


class CrossHead:
    """Hands a layer's input on from the student's head to the teacher's.

    ::

        x -> (x - mean_s) / (std_s + eps) * std_t + mean_t

    of each channel, over the images and places of a level: what the
    teacher's remaining layers expect. Mean and deviation of the student
    have gradient.

    Args:
        layer: Path of the layer in both heads, for instance
            'cls_convs.2.activate': what goes into the third activation of
            the classification tower, after its convolution and norm.

    Source: Wang et al. (CrossKD), arXiv:2306.11369, section 3.2.
    """

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def check(self, student_head: nn.Module, teacher_head: nn.Module) -> None:
        """Refuses heads without the layer.

        Raises:
            ValueError: one has no layer of that path; the message says how
                far it goes.
        """
        for owner, head in (
            ('student', student_head),
            ('teacher', teacher_head),
        ):
            part, path = head, ''
            for name in self.layer.split('.'):
                if name not in part._modules:
                    raise ValueError(
                        f"cross_layer={self.layer!r}: the {owner}'s head "
                        f'{type(head).__name__} has no {path + name!r}; '
                        f'there are {", ".join(part._modules) or "none"}. '
                        "'cls_convs.2.activate' is the published layer of "
                        'GFL, RetinaNet and ATSS, '
                        "'cls_convs.1.activate' that of FCOS"
                    )
                part, path = part._modules[name], f'{path}{name}.'

    @contextmanager
    def tapped(self, head: nn.Module) -> Iterator[list[Tensor]]:
        """Notes the layer's input of each level."""
        seen = []

        def see(module: nn.Module, args: tuple) -> None:
            # Activations write into their input.
            seen.append(args[0].clone())

        handle = head.get_submodule(self.layer).register_forward_pre_hook(see)
        try:
            yield seen
        finally:
            handle.remove()

    @contextmanager
    def crossed(
        self,
        head: nn.Module,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
    ) -> Iterator[None]:
        """The teacher's layer gets the student's input inside the block.

        Args:
            head: The teacher's.
            student: The student's input of each level, with gradient.
            teacher: The teacher's own.

        Raises:
            ValueError: they are not alike.
        """
        shapes = [
            [tuple(each.shape) for each in side] for side in (student, teacher)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f'cross_layer={self.layer!r}: what goes into it must have '
                f'one shape in both heads, got {shapes[0]} in the student '
                f'and {shapes[1]} in the teacher (images, channels, rows, '
                'columns by level)'
            )
        pairs = zip(student, teacher, strict=True)

        def replace(module: nn.Module, args: tuple) -> tuple:
            return (as_teachers(*next(pairs)), *args[1:])

        handle = head.get_submodule(self.layer).register_forward_pre_hook(
            replace
        )
        try:
            yield
        finally:
            handle.remove()


def as_teachers(student: Tensor, teacher: Tensor) -> Tensor:
    """Features with the mean and the deviation of the teacher's channels.

    Args:
        student: (B, C, H, W).
        teacher: Same shape, without gradient.
    """
    with torch.autocast(student.device.type, enabled=False):
        mean, deviation = _moments(student)
        mean_t, deviation_t = _moments(teacher)
        unified = (student.float() - mean) / (deviation + EPS)
        return (unified * deviation_t + mean_t).to(student.dtype)


def _moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased deviation of each channel, (1, C, 1, 1)."""
    maps = maps.float()
    places = maps.shape[0] * maps.shape[2] * maps.shape[3]
    variance, mean = torch.var_mean(
        maps, (0, 2, 3), correction=min(1, places - 1), keepdim=True
    )
    # The root of 0, of a constant channel, has no gradient.
    constant = variance == 0
    root = variance.masked_fill(constant, 1.0).sqrt()
    return mean, root.masked_fill(constant, 0.0)
