"""What the teacher's dense head makes of the student's features."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ..unused import layers_with_gradient, skipped, unused_layers
from .cross_head import CrossBoxBranch, CrossHead
from .grid_levels import training_outputs
from .heads import spec_of

Inputs = Sequence[Sequence[Tensor]]


class GridCrossing:
    """The branches of a dense head in which the teacher's takes over.

    Of the teacher's head what lies before these layers, and what leads to
    nothing that is compared, is not run again.

    Args:
        layer: Where the branch of the class scores is crossed.
        box_layer: Where that of the boxes is, or None.
    """

    def __init__(self, layer: str, box_layer: str | None) -> None:
        self.branches = [CrossHead(layer)]
        if box_layer is not None:
            self.branches.append(CrossBoxBranch(box_layer))
        # Paths of the layers that need not run, and of those that gradient
        # passes; of one teacher.
        self._needless: list[str] | None = None
        self._passed: list[str] = []

    def __str__(self) -> str:
        return ' and '.join(branch.layer for branch in self.branches)

    @property
    def of_boxes(self) -> bool:
        """Whether boxes are crossed."""
        return len(self.branches) > 1

    def check(self, student_head: nn.Module, teacher_head: nn.Module) -> None:
        """See :meth:`CrossHead.check`."""
        for branch in self.branches:
            branch.check(student_head, teacher_head)

    @contextmanager
    def tapped(self, head: nn.Module) -> Iterator[list[list[Tensor]]]:
        """Notes what goes into each layer, of each level."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(branch.tapped(head))
                for branch in self.branches
            ]

    def outputs(
        self,
        head: nn.Module,
        features: Sequence[Tensor],
        student: Inputs,
        teacher: Inputs,
        levels: int,
    ) -> Sequence:
        """What the teacher's head puts out from the layers on.

        Args:
            head: The teacher's.
            features: Its own, of each level.
            student: What :meth:`tapped` noted of the student, with gradient.
            teacher: What it noted of the teacher.
            levels: How many levels are compared.

        Raises:
            ValueError: a layer does not run once a level, or its input is
                not alike in both.
        """
        for branch, own, other in zip(
            self.branches, student, teacher, strict=True
        ):
            branch.check_levels(own, other, levels)
        if self._needless is None:
            # Looks at layers: nothing for Dynamo to trace. Disabled here, as
            # its import takes a second.
            look = torch.compiler.disable(self._look)
            look(head, features, student, teacher)
        layers = [head.get_submodule(path) for path in self._needless]
        with skipped(layers):
            return self._run(head, features, student, teacher)

    def _run(
        self,
        head: nn.Module,
        features: Sequence[Tensor],
        student: Inputs,
        teacher: Inputs,
    ) -> Sequence:
        with ExitStack() as stack:
            for branch, own, other in zip(
                self.branches, student, teacher, strict=True
            ):
                stack.enter_context(branch.crossed(head, own, other))
            return training_outputs(head, features)

    def passed(self, head: nn.Module) -> set[nn.Module]:
        """The layers with weights that the student's features go through.

        Args:
            head: The teacher's, which has run.
        """
        return {head.get_submodule(path) for path in self._passed}

    def _look(
        self,
        head: nn.Module,
        features: Sequence[Tensor],
        student: Inputs,
        teacher: Inputs,
    ) -> None:
        # What a few images show holds for all.
        ours, theirs = (
            [[maps[:2].detach() for maps in seen] for seen in side]
            for side in (student, teacher)
        )
        for seen in ours:
            for maps in seen:
                maps.requires_grad_()

        def compared(inputs: Sequence[Tensor]) -> list[Tensor]:
            outputs = self._run(head, inputs, ours, theirs)
            found = spec_of(head).levels(outputs, head)
            return [*found, *outputs[1]] if self.of_boxes else found

        few = [maps[:2].detach() for maps in features]
        with torch.enable_grad():
            passed = layers_with_gradient(head, partial(compared, few))
        unused = unused_layers(head, compared, few)
        self._needless, self._passed = (
            [path for path, layer in head.named_modules() if layer in found]
            for found in (unused, passed)
        )

    def check_way(
        self,
        student: Inputs,
        scores: Tensor,
        boxes: Sequence[tuple[Tensor, Tensor]],
        head: nn.Module,
    ) -> None:
        """See :meth:`CrossHead.check_way`.

        Args:
            student: What :meth:`tapped` noted of the student.
            scores: The crossed ones.
            boxes: The student's and the teacher's, in whatever form losses
                asked for.
            head: The teacher's.

        Raises:
            ValueError: a layer reaches nothing, or boxes are crossed and no
                loss compares any.
        """
        self.branches[0].check_way(
            student[0][0], scores, head, 'the class scores'
        )
        if not self.of_boxes:
            return
        branch = self.branches[1]
        if not boxes:
            raise ValueError(
                f'{branch.option}={branch.layer!r} crosses boxes, and no loss '
                'compares any: add an LDLoss (GFL) or a BoxGIoULoss, or '
                f'leave {branch.option} out'
            )
        for crossed, _ in boxes:
            branch.check_way(student[1][0], crossed, head, 'the boxes')
