"""Matched logits of image classifiers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .base import Match, Reader, Scores


class ScoreTap:
    """Notes what an image classifier hands to its classification loss."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []

    def see_scores(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Hook before the loss module: forward(cls_score, target, ...)."""
        self.calls.append(args[:2])


class ClassifierReader(Reader):
    """Reads an image classifier's logits, one row for each image.

    The student's training forward is run once; a hook on its loss module
    notes the scores and the targets on the way. Every classifier of
    MMPretrain with one softmax over exclusive classes will do:
    ``ImageClassifier`` with a ``ClsHead`` or a relative, ``TimmClassifier``
    and ``HuggingFaceClassifier``.

    Multi-label classifiers are refused: each of their classes is a decision
    of its own, and no paper here says how to rank or soften those.
    """

    name = 'images'
    rank = 1

    def __repr__(self) -> str:
        return 'classifier, one row for each image'

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        """See :meth:`Reader.fits`."""
        return hasattr(_head(model), 'loss_module')

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuses models that this reader cannot match.

        Raises:
            TypeError: one is no classifier with a softmax over its classes.
        """
        for owner, model in (('student', student), ('teacher', teacher)):
            loss = getattr(_head(model), 'loss_module', None)
            if loss is None or _num_classes(model) is None:
                raise TypeError(
                    f'the {owner} {type(model).__name__} with the head '
                    f'{type(_head(model)).__name__} has no loss_module and '
                    'num_classes: KDClassifier distils image classifiers '
                    'with one linear softmax head'
                )
            if 'MultiLabel' in type(_head(model)).__name__ or getattr(
                loss, 'use_sigmoid', False
            ):
                raise TypeError(
                    f"the {owner}'s head {type(_head(model)).__name__} with "
                    f'{type(loss).__name__} decides each class by a sigmoid '
                    '(multi-label). Logit distillation here needs one '
                    'softmax over exclusive classes: use a single-label '
                    'head with use_sigmoid=False'
                )

    def scores(self, model: nn.Module) -> Scores:
        """See :meth:`Reader.scores`."""
        return Scores(_num_classes(model))

    @contextmanager
    def tap(self, student: nn.Module) -> Iterator[ScoreTap]:
        """Notes the logits of the student's forward run inside the block."""
        tap = ScoreTap()
        handle = _head(student).loss_module.register_forward_pre_hook(
            tap.see_scores, with_kwargs=True
        )
        try:
            yield tap
        finally:
            handle.remove()

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
            RuntimeError: the head computed several losses, or none.
        """
        if len(tap.calls) != 1:
            raise RuntimeError(
                f"the student's head {type(_head(student)).__name__} "
                f'computed {len(tap.calls)} classification losses in one '
                'step; one was expected, on the scores to distil'
            )
        ((scores, target),) = tap.calls
        return [
            Match(
                scores,
                image_logits(teacher, teacher_inputs),
                _class_indices(target),
            )
        ]


@torch.no_grad()
def image_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """A classifier's scores before softmax.

    Args:
        model: An image classifier.
        inputs: (N, 3, H, W), preprocessed for it.

    Returns:
        (N, C).
    """
    return model(inputs, mode='tensor')


def _head(model: nn.Module) -> nn.Module:
    """The part with the loss module: timm's classifiers have no head."""
    head = getattr(model, 'head', None)
    return model if head is None else head


def _num_classes(model: nn.Module) -> int | None:
    # A classifier around a timm or Hugging Face network keeps it in .model.
    for part in (_head(model), getattr(model, 'model', None)):
        for name in ('num_classes', 'num_labels'):
            number = getattr(part, name, None)
            if isinstance(number, int):
                return number
    return None


def _class_indices(target: Tensor) -> Tensor:
    """(N,) indices, from indices or one-hot rows; mixed rows as they are."""
    if target.dim() == 1:
        return target
    largest, indices = target.max(dim=1)
    return indices if bool((largest == 1).all()) else target
