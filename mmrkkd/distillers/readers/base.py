"""What a kind of head must provide to be distilled, and what it yields.

A reader is the only thing that a new kind of head needs: one file in this
folder, found by itself. docs/en/add_a_head.md writes one from start to end.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

ACTIVATIONS = ('softmax', 'sigmoid')
# What losses may ask for besides of the class scores.
WANTED = dict(
    groups='the candidates of each object',
    bins='the distributions of the sides of boxes, which GFL has',
    boxes='the boxes of the cells',
)
# Of these, what the teacher's head puts out beside its scores.
BESIDE_SCORES = frozenset({'bins', 'boxes'})


@dataclass(frozen=True)
class Scores:
    """What the class scores of a model mean.

    Args:
        channels: Scores of a row, background included.
        activation: 'softmax', one class excludes the others; 'sigmoid',
            each class is a decision of its own.
        background: Whether the last channel is the background.
    """

    channels: int
    activation: str = 'softmax'
    background: bool = False

    @property
    def classes(self) -> int:
        """Number of classes, without background."""
        return self.channels - self.background

    def __str__(self) -> str:
        background = ' with background' if self.background else ''
        return f'{self.channels} channels{background}, {self.activation}'


@dataclass
class Match:
    """What teacher and student say of the same samples of one batch.

    A sample is whatever a head scores: an image, a box, a cell, a query.

    Args:
        student_logits: (N, C_s), with gradient.
        teacher_logits: (N, C_t), of the same N samples.
        labels: (N,), indices into the student's channels; (N, C_s), the
            shares of the classes in mixed samples; or None where the
            samples have none.
        weight: (N,), >= 0, the weight of each sample, or None for 1.
        prefix: Put before the log keys of its terms, e.g. 's0.'.
        scale: Multiplies its loss terms.
        places: Where the samples are, (N, ...), in the reader's own terms:
            RoIs as (image, x1, y1, x2, y2). None where they are images.
        sources: The tensors that left the student, if ``student_logits``
            was made from them.
        box_sources: What left the student that ``boxes`` or ``bins`` were
            made from; empty where that is among the ``sources``.
        counts: (N,) bool, the samples that the student's head counts in its
            own loss; None for all.
        normalizer: What a loss that adds up over all samples divides by,
            instead of the sum of the weights; a scalar > 0. None where
            every sum is a mean.
        confidence: (N,), the teacher's highest probability of a class that
            is compared, if it is known already.
        groups: (N,), the number of the object that each sample is a
            candidate of, -1 for none; None where nobody asked.
        bins: The student's and the teacher's logits of how far each side of
            the box is, (N, 4, K) each; None where nobody asked.
        boxes: The student's and the teacher's, x1, y1, x2, y2 in pixels, of
            queries in shares of the image, (N, 4) each; None where nobody
            asked.
        images: B, where the samples are those of image 0, then of image 1
            and so on, as many of each. None where they are not.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor | None
    weight: Tensor | None = None
    prefix: str = ''
    scale: float = 1.0
    places: Tensor | None = None
    sources: Sequence[Tensor] = field(default=())
    box_sources: Sequence[Tensor] = field(default=())
    counts: Tensor | None = None
    normalizer: Tensor | None = None
    confidence: Tensor | None = None
    groups: Tensor | None = None
    bins: tuple[Tensor, Tensor] | None = None
    boxes: tuple[Tensor, Tensor] | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        self.sources = self.sources or (self.student_logits,)


def stack_views(matches: Sequence[Match]) -> Match:
    """The same samples in V views as one match, (V, N, C).

    One view is returned as it is, (N, C).
    """
    first = matches[0]
    if len(matches) == 1:
        return first
    stacked = {
        entry.name: getattr(first, entry.name) for entry in fields(Match)
    }
    for name, value in stacked.items():
        if isinstance(value, Tensor):
            stacked[name] = torch.stack(
                [getattr(match, name) for match in matches]
            )
    for name in ('sources', 'box_sources'):
        stacked[name] = [
            source for match in matches for source in getattr(match, name)
        ]
    return Match(**stacked)


class Reader(ABC):
    """Reads matched logits of a kind of head out of a pair of models.

    ``name`` is what ``matching=dict(type=...)`` calls it; the other keys of
    that dict are the arguments of its ``__init__``. Readers that ``fits``
    the student are taken by ``matching='auto'``, in the order of ``rank``.
    With ``keeps_size`` the teacher's input is padded to the student's size,
    whatever multiples the teacher pads its own to: its samples are places.
    ``unit`` is what its samples are called where they are counted.
    ``ranked_at`` says where losses that rank apply if their config does not
    (:class:`~mmrkkd.losses.placement.Placement`); None: where all do.
    ``class_map`` is the distiller's, for readers that compare scores
    themselves; ``prompts`` are the teacher's classes, by which one that
    reads texts is asked.
    With ``crosses`` the student's features run through the teacher's head,
    which then stays in float32 (:attr:`needs_exact_heads`).
    ``offers`` are the fields of :class:`Match` that it fills where a loss
    asks for them (:meth:`want`).
    """

    name = ''
    rank = 0
    keeps_size = False
    unit = 'samples'
    ranked_at: str | None = None
    crosses = False
    class_map: object | None = None
    prompts: Sequence[str] | None = None
    offers: tuple[str, ...] = ()
    wants: frozenset[str] = frozenset()
    labels_from: str | None = None

    @classmethod
    @abstractmethod
    def fits(cls, model: nn.Module) -> bool:
        """Whether a model's head is of this kind."""

    @abstractmethod
    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuses models that this reader cannot match.

        Raises:
            TypeError: one has a head of another kind.
            ValueError: the two do not go together.
        """

    @abstractmethod
    def scores(self, model: nn.Module) -> Scores:
        """What the class scores of a checked model mean."""

    def learns_boxes(self, student: nn.Module) -> bool:
        """Whether the student's own losses compare boxes.

        If not, objects whose box has no area are no fault of the data.
        """
        return True

    @abstractmethod
    def tap(self, student: nn.Module) -> AbstractContextManager:
        """Notes what passes through the student inside the block.

        Hooks only: the student's own forward is run once, as it is.

        Returns:
            A context manager, whose value :meth:`read` gets.
        """

    @abstractmethod
    def read(
        self,
        taps: object,
        student: nn.Module,
        teacher: nn.Module,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> list[Match]:
        """Scores the student's samples with the teacher, without gradient.

        Args:
            taps: What :meth:`tap` gave, after the student's forward.
            student: The student.
            teacher: The teacher, in eval mode.
            teacher_inputs: (B, 3, H, W), preprocessed for the teacher, in
                the student's geometry.
            data_samples: B samples of the batch.

        Returns:
            One match for each head or stage, the same ones in every step.
        """

    @property
    def needs_exact_heads(self) -> bool:
        """Whether the teacher's heads keep float32."""
        return self.crosses or self.needs_whole_heads

    @property
    def needs_whole_heads(self) -> bool:
        """Whether the teacher's heads keep every layer."""
        return bool(self.wants & BESIDE_SCORES)

    def passed_layers(self, teacher: nn.Module) -> set[nn.Module] | None:
        """Layers of the teacher's head that the student's features pass.

        They keep float32, what lies before them need not.

        Args:
            teacher: One that this reader has read.

        Returns:
            None where the whole head must keep it.
        """
        return None

    def say_where_labels_are_from(self, order: str) -> None:
        """Says in the log, once, where a head's labels were found.

        Args:
            order: In which order of its loss's calls; 'none' if nowhere.
        """
        if self.labels_from is not None:
            return
        self.labels_from = order
        source = (
            "none, the student's head does not show them"
            if order == 'none'
            else f"the student's own, {order}"
        )
        print_log(f'Labels of the {self.unit}: {source}', logger='current')

    def want(
        self, what: str, loss: str, student: nn.Module, teacher: nn.Module
    ) -> None:
        """Makes matches hold more of their samples.

        Args:
            what: A field of :class:`Match`: 'groups', 'bins' or 'boxes'.
            loss: Name of the loss that asks.
            student: The student.
            teacher: The teacher.

        Raises:
            TypeError: the samples have no such thing, or an unlike one.
        """
        if what not in self.offers:
            raise TypeError(
                f'{loss} compares {WANTED[what]}, and the {self.unit} of the '
                f'reader {self.name!r} have none. Leave it out'
            )
        self.wants = self.wants | {what}

    def held_out(
        self,
        student: nn.Module,
        teacher: nn.Module,
        inputs: Tensor,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> tuple[Tensor, Tensor] | None:
        """The logits of both models on samples that no training chose.

        The same samples for every student of a teacher, so that students
        can be compared by how well they follow it. ``unit`` names them.

        Args:
            student: The student, in eval mode.
            teacher: The teacher, in eval mode.
            inputs: (B, 3, H, W), preprocessed for the student.
            teacher_inputs: (B, 3, H, W), preprocessed for the teacher.
            data_samples: B samples with their annotations.

        Returns:
            (N, C_s) and (N, C_t), or None where there is no sample.

        Raises:
            NotImplementedError: the reader says none; it can train all the
                same.
        """
        raise NotImplementedError(
            f'the reader {self.name!r} does not say on which samples a '
            'student and its teacher are compared on held-out images: give '
            f'{type(self).__name__} a method held_out'
        )

    def __repr__(self) -> str:
        return self.name
