"""Matched logits of image classifiers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .base import Match, Reader, Scores
from .image_heads import (
    check_image_head,
    check_image_loss,
    image_head,
    image_scores,
    seen_classes,
    source_of,
    stated_classes,
)
from .loss_tap import LossTap


class ScoreTap:
    """Notes what an image classifier's head puts out in the student's forward.

    ``outputs`` are those of the part that has the scores, ``seen`` what the
    loss may see of them: a head may change its scores on the way.
    """

    def __init__(self) -> None:
        self.outputs: list[object] = []
        self.seen: list[Tensor] = []
        self.loss = LossTap()

    def see_output(
        self, module: nn.Module, args: tuple, output: object
    ) -> None:
        """Hook after the part that has the scores."""
        self.outputs.append(output)

    def see_head(self, module: nn.Module, args: tuple, output: object) -> None:
        """Hook after the head."""
        self.seen += _tensors(output)


class ClassifierReader(Reader):
    """Reads an image classifier's logits, one row for each image.

    The student's training forward is run once; hooks note what its head
    puts out, and with which targets its loss is called. The logits are those
    whose softmax the head predicts: without ArcFace's margin, the sum of
    Conformer's two. Every classifier of MMPretrain with one softmax over
    exclusive classes will do: ``ImageClassifier`` with a ``ClsHead`` or a
    relative, also on a backbone that classifies itself (VGG), and
    ``TimmClassifier`` and ``HuggingFaceClassifier``.

    Multi-label classifiers are refused: each of their classes is a decision
    of its own, and no paper here says how to rank or soften those.
    """

    name = 'images'
    unit = 'images'
    rank = 1

    def __repr__(self) -> str:
        return 'classifier, one row for each image'

    def __init__(self) -> None:
        # Classes counted by running a model, by its head.
        self._counted: dict[nn.Module, int] = {}
        self._checked_loss: nn.Module | None = None

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        """See :meth:`Reader.fits`."""
        return hasattr(image_head(model), 'loss_module')

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuses models that this reader cannot match.

        Raises:
            TypeError: one is no classifier with a softmax over its classes.
            ValueError: one puts out no row of scores.
        """
        for owner, model in (('student', student), ('teacher', teacher)):
            check_image_head(owner, model)
            if stated_classes(model) is None:
                head = image_head(model)
                self._counted[head] = seen_classes(owner, model)

    def scores(self, model: nn.Module) -> Scores:
        """See :meth:`Reader.scores`."""
        number = stated_classes(model)
        if number is None:
            head = image_head(model)
            if head not in self._counted:
                self._counted[head] = seen_classes('model', model)
            number = self._counted[head]
        return Scores(number)

    @contextmanager
    def tap(self, student: nn.Module) -> Iterator[ScoreTap]:
        """Notes the logits of the student's forward run inside the block.

        Raises:
            TypeError: a hook has put a sigmoid loss into the head.
        """
        head = image_head(student)
        if head.loss_module is not self._checked_loss:
            check_image_loss('student', head)
            self._checked_loss = head.loss_module
        tap = ScoreTap()
        source = head.get_submodule(source_of(head).module)
        with (
            source.register_forward_hook(tap.see_output),
            head.register_forward_hook(tap.see_head),
            head.loss_module.register_forward_pre_hook(
                tap.loss.see, with_kwargs=True
            ),
        ):
            yield tap

    @torch.no_grad()
    def read(
        self,
        tap: ScoreTap,
        student: nn.Module,
        teacher: nn.Module,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> list[Match]:
        """Scores the images with the teacher.

        Args:
            tap: What :meth:`tap` gave, after the student's forward.
            student: The student.
            teacher: The teacher, in eval mode.
            teacher_inputs: (N, 3, H, W), preprocessed for the teacher.
            data_samples: N samples; unused.

        Returns:
            One match. Its labels are shares of the classes where images
            were mixed (Mixup, CutMix), as such an image has no one class.

        Raises:
            RuntimeError: the head ran several times, or its loss saw other
                scores than it puts out.
        """
        head = image_head(student)
        if len(tap.outputs) != 1:
            raise RuntimeError(
                f"the student's head {type(head).__name__} ran "
                f'{len(tap.outputs)} times in one step; one was expected, '
                'for the scores to distil'
            )
        (output,) = tap.outputs
        # The logits may be made of what left the student.
        with torch.enable_grad():
            scores = source_of(head).scores(head, output)
        sources = tuple(_tensors(output)) or (scores,)
        target = tap.loss.labels_of(scores, *sources, *tap.seen)
        if target is None:
            raise RuntimeError(
                f"the student's head {type(head).__name__} computed "
                f'{len(tap.loss.calls)} classification losses in this step, '
                'none of them on the scores that it puts out, so it is not '
                'known what it predicts with. docs/en/add_a_head.md says how '
                'to write a reader for it'
            )
        return [
            Match(
                scores,
                image_logits(teacher, teacher_inputs),
                _class_indices(target),
                sources=sources,
            )
        ]

    @torch.no_grad()
    def held_out(
        self,
        student: nn.Module,
        teacher: nn.Module,
        inputs: Tensor,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Reader.held_out`: the images."""
        return (
            image_logits(student, inputs),
            image_logits(teacher, teacher_inputs),
        )


@torch.no_grad()
def image_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """A classifier's scores before softmax.

    Args:
        model: An image classifier.
        inputs: (N, 3, H, W), preprocessed for it.

    Returns:
        (N, C).
    """
    return image_scores(image_head(model), model(inputs, mode='tensor'))


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (tuple, list)):
        return [item for item in output if isinstance(item, Tensor)]
    return []


def _class_indices(target: Tensor) -> Tensor:
    """(N,) indices, from indices or one-hot rows; mixed rows as they are."""
    if target.dim() == 1:
        return target
    largest, indices = target.max(dim=1)
    return indices if bool((largest == 1).all()) else target
