"""Cross-head distillation: the student's features in the teacher's head."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from mmrkkd.ops.constants import constant

from ..class_map import ClassMap
from .crossing_layers import AUTO, usual_layer

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
            the classification tower, after its convolution and norm. Where
            each level has a tower of its own '*' stands for the levels:
            'cls_convs.*.0.activate'. 'auto' is the usual one of the head,
            :func:`usual_layer`.

    Source: Wang et al. (CrossKD), arXiv:2306.11369, section 3.2.
    """

    option = 'cross_layer'
    towers = ('cls_convs', 'multi_level_cls_convs')
    reaches = 'class score'
    advice = (
        "'cls_convs.2.activate' is the published layer of GFL, RetinaNet and "
        'ATSS, whose towers have 4 convolutions (of n it is n - 2), '
        "'cls_convs.1.activate' that of FCOS; where each level has a tower "
        "of its own '*' stands for all, as in 'cls_convs.*.0.activate' of "
        "RTMDet, 'rtm_cls.*' of RTMDet-Ins, whose branches share a tower, and "
        "'multi_level_cls_convs.*.0.activate' of YOLOX"
    )
    axes = 'images, channels, rows, columns by level'

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def unified(self, student: Tensor, teacher: Tensor) -> Tensor:
        """What the teacher's layer gets in place of its own input."""
        return as_teachers(student, teacher)

    def check(self, student_head: nn.Module, teacher_head: nn.Module) -> None:
        """Refuses heads without the layer, which is known from here on.

        Raises:
            ValueError: one has no layer of that path; the message says how
                far it goes. Or no usual one, or not the same.
        """
        if self.layer == AUTO:
            self.layer = self._usual(student_head, teacher_head)
        for owner, head in (
            ('student', student_head),
            ('teacher', teacher_head),
        ):
            self._layers(head, owner)

    def _usual(self, student_head: nn.Module, teacher_head: nn.Module) -> str:
        found = []
        for owner, head in (
            ('student', student_head),
            ('teacher', teacher_head),
        ):
            found.append(usual_layer(head, self.towers))
            if found[-1] is None:
                raise ValueError(
                    f"{self.option}='{AUTO}': the {owner}'s "
                    f'{type(head).__name__} has no tower of convolutions '
                    f'with activations ({" or ".join(self.towers)}); name '
                    f'the layer. {self.advice}'
                )
        if found[0] != found[1]:
            raise ValueError(
                f"{self.option}='{AUTO}' is {found[0]!r} in the student's "
                f"head and {found[1]!r} in the teacher's: name one layer of "
                f'both. {self.advice}'
            )
        return found[0]

    def _layers(self, head: nn.Module, owner: str = '') -> list[nn.Module]:
        """The layer, or that of each level; levels may share one."""
        parts, path = [head], ''
        for name in self.layer.split('.'):
            path += name
            found = [_children(part, name) for part in parts]
            if not all(found):
                part = parts[found.index([])]
                raise ValueError(
                    f"{self.option}={self.layer!r}: the {owner}'s head "
                    f'{type(head).__name__} has no {path!r}; there are '
                    f'{", ".join(part._modules) or "none"}. {self.advice}'
                )
            parts = [child for children in found for child in children]
            path += '.'
        return list(dict.fromkeys(parts))

    def check_levels(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], levels: int
    ) -> None:
        """Refuses a layer that is not that of every level.

        Args:
            student: What went into the student's.
            teacher: What went into the teacher's.
            levels: How many there are.

        Raises:
            ValueError: it ran less or more often than there are levels:
                the scores of the others would be the teacher's own.
        """
        for owner, seen in (('student', student), ('teacher', teacher)):
            if len(seen) != levels:
                raise ValueError(
                    f"{self.option}={self.layer!r}: the {owner}'s head ran it "
                    f'{len(seen)} times for {levels} levels of features; '
                    f'give a layer that runs once a level. {self.advice}'
                )

    def check_way(
        self, student: Tensor, crossed: Tensor, head: nn.Module, last: str
    ) -> None:
        """Refuses a layer on which nothing depends that is compared.

        Args:
            student: What went into the student's layer.
            crossed: The scores, or what boxes are made of.
            head: The teacher's.
            last: What the layer must lie before, for the message.

        Raises:
            ValueError: nothing of the student reaches it.
        """
        if student.requires_grad and not crossed.requires_grad:
            raise ValueError(
                f'{self.option}={self.layer!r}: no {self.reaches} of the '
                f"teacher's {type(head).__name__} depends on it; give a "
                f'layer on the way to {last}. {self.advice}'
            )

    @contextmanager
    def tapped(self, head: nn.Module) -> Iterator[list[Tensor]]:
        """Notes the layer's input of each level.

        Raises:
            RuntimeError: gradients are on around the head and off in the
                layer.
        """
        seen, learns = [], torch.is_grad_enabled()

        def see(module: nn.Module, args: tuple) -> None:
            if learns and not torch.is_grad_enabled():
                raise RuntimeError(
                    f"{self.option}={self.layer!r}: the student's head ran it "
                    'without gradient, so that what is crossed there would '
                    'teach the student nothing: it is inside a checkpointed '
                    'block (with_cp=True, activation_checkpointing) or under '
                    'torch.no_grad(). Leave the head out of '
                    'activation_checkpointing'
                )
            seen.append(args[0].clone() if _writes(module) else args[0])

        with self._hooked(head, see):
            yield seen

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
                f'{self.option}={self.layer!r}: what goes into it must have '
                f'one shape in both heads, got {shapes[0]} in the student '
                f'and {shapes[1]} in the teacher ({self.axes}). '
                f'{self.advice}'
            )
        pairs = zip(student, teacher, strict=True)

        def replace(module: nn.Module, args: tuple) -> tuple:
            given = next(pairs)
            unified = self.unified(*given)
            if unified is given[0] and _writes(module):
                unified = unified.clone()
            return (unified, *args[1:])

        with self._hooked(head, replace):
            yield

    @contextmanager
    def _hooked(self, head: nn.Module, hook: Callable) -> Iterator[None]:
        """Calls the hook before the layer, or that of each level, runs."""
        with ExitStack() as stack:
            for layer in self._layers(head):
                stack.enter_context(layer.register_forward_pre_hook(hook))
            yield


class CrossBoxBranch(CrossHead):
    """As :class:`CrossHead`, for the branch that says where boxes are.

    Args:
        layer: Path of the layer in both heads, for instance
            'reg_convs.2.activate'.
    """

    option = 'cross_box_layer'
    towers = ('reg_convs', 'multi_level_reg_convs')
    reaches = 'box'
    advice = (
        "'reg_convs.2.activate' is the published layer of GFL, RetinaNet and "
        'ATSS, whose towers have 4 convolutions (of n it is n - 2), '
        "'reg_convs.1.activate' that of FCOS"
    )


def _children(part: nn.Module, name: str) -> list[nn.Module]:
    """The one of that name, or all of a list for '*'."""
    if name == '*' and isinstance(part, (nn.ModuleList, nn.Sequential)):
        return list(part)
    child = part._modules.get(name)
    return [] if child is None else [child]


def _writes(module: nn.Module) -> bool:
    """Whether it may write into its input, as activations do."""
    return any(getattr(part, 'inplace', False) for part in module.modules())


def in_students_channels(
    logits: Tensor, class_map: ClassMap | None, channels: int
) -> Tensor:
    """The teacher's channels in the places of the student's.

    Args:
        logits: (..., C_t).
        class_map: Which channel belongs to which; None for equal ones.
        channels: C_s.

    Returns:
        (..., C_s), 0 where the teacher does not know the class.
    """
    if class_map is None or class_map.student is None:
        return logits
    known = class_map.select_teacher(logits)
    places = constant(class_map.student, logits.device)
    empty = known.new_zeros(*known.shape[:-1], channels)
    return empty.index_copy(-1, places, known)


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
