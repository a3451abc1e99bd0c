"""What all readers of queries share: pairs, layers, labels, weights."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrkkd.losses.placement import Placement
from mmrkkd.ops.checks import check_choice

from .base import Match, Reader, Scores
from .locations import confidence, located, positives
from .loss_tap import LossTap
from .query_matching import Predictions, corners, matched, picked, surest

LOCATIONS = ('all', 'foreground', 'confidence')
LAYERS = ('all', 'last')
TEACHER_LAYERS = ('same', 'last')


class PairedQueries(Reader):
    """Base of the readers whose samples are pairs of queries.

    The queries of two models have no common order. The surest of the
    teacher's are each answered by one of the student's, in every layer of
    the student: a decoder layer, or a stage of Sparse R-CNN.

    Args:
        teacher_top: How many of the teacher's queries count, in each image
            and layer, the surest first. Defaults to 100.
        layers: Which of the student's layers learn, 'all' or 'last'.
            Defaults to 'all'.
        teacher_layer: Which layer teaches. 'same', counted from the last,
            or the first where the teacher has fewer; 'last'. Defaults to
            'same'.
        locations: Which pairs count. 'all'; 'foreground', those whose
            student's query the student's own loss matched with an object;
            'confidence', all, each weighted by the teacher's highest
            probability of a class. Defaults to 'confidence'.
    """

    unit = 'queries'
    keeps_size = True
    offers = ('boxes',)

    def __init__(
        self,
        teacher_top: int = 100,
        layers: str = 'all',
        teacher_layer: str = 'same',
        locations: str = 'confidence',
    ) -> None:
        check_choice('layers', layers, LAYERS)
        check_choice('teacher_layer', teacher_layer, TEACHER_LAYERS)
        check_choice('locations', locations, LOCATIONS)
        if type(teacher_top) is not int or teacher_top < 1:
            raise ValueError(
                'teacher_top must be a number of queries >= 1, got '
                f'{teacher_top!r}'
            )
        self.teacher_top = teacher_top
        self.layers, self.teacher_layer = layers, teacher_layer
        self.locations = locations

    def learning(self, layers: Sequence) -> list[int]:
        """The indices of the student's layers that learn."""
        count = len(layers)
        return list(range(count)) if self.layers == 'all' else [count - 1]

    @abstractmethod
    def predicted(
        self, model: nn.Module, inputs: Tensor, data_samples: Sequence
    ) -> list[Predictions]:
        """What the layers of a model in eval mode say, as it predicts.

        Args:
            model: The student or the teacher.
            inputs: (B, 3, H, W), preprocessed for it.
            data_samples: B samples of the batch.
        """

    @torch.no_grad()
    def held_out(
        self,
        student: nn.Module,
        teacher: nn.Module,
        inputs: Tensor,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Reader.held_out`: the teacher's surest of the last."""
        layers = [
            self.predicted(model, images, data_samples)[-1:]
            for model, images in (
                (student, inputs),
                (teacher, teacher_inputs),
            )
        ]
        (match,) = self.pair(*layers, self.scores(student), weighted=False)
        return match.student_logits, match.teacher_logits

    def pair(
        self,
        students: Sequence[Predictions],
        teachers: Sequence[Predictions],
        scores: Scores,
        labels: Sequence[Tensor] | None = None,
        shared: bool = False,
        weighted: bool = True,
    ) -> list[Match]:
        """Pairs the layers that learn with those that teach.

        Args:
            students: The student's layers, (B, Q_s, ...).
            teachers: The teacher's, (B, Q_t, ...).
            scores: What the scores mean.
            labels: (B, Q_s) of each of the student's layers, or None.
            shared: Whether the queries are the same ones. Defaults to
                False.
            weighted: Weigh and normalise them for a loss, for which the
                processes wait for each other. Defaults to True.

        Returns:
            A match for each layer of :meth:`learning`.
        """
        learning = self.learning(students)
        teaching = [
            teachers[self._teaching(layer - len(students), len(teachers))]
            for layer in learning
        ]
        students = [students[layer] for layer in learning]
        count = min(
            self.teacher_top,
            *(side[-1].scores.shape[1] for side in (students, teaching)),
        )
        chosen = [
            surest(layer, count, scores, self.class_map) for layer in teaching
        ]
        asked = [
            layer.pick(queries)
            for layer, queries in zip(teaching, chosen, strict=True)
        ]
        answers = chosen if shared else self._answers(students, asked, scores)
        answering = [
            layer.pick(queries)
            for layer, queries in zip(students, answers, strict=True)
        ]
        matches = [
            self._match(*sides, scores)
            for sides in zip(answering, asked, strict=True)
        ]
        if not weighted:
            return matches
        last = None if labels is None else labels[learning[-1]].flatten()
        share_normalizer(matches, last, scores)
        for index, match in enumerate(matches):
            if labels is not None:
                own = labels[learning[index]]
                match.labels = picked(own, answers[index]).flatten()
            match.weight = located(match, scores, Placement(self.locations))
        return matches

    def _teaching(self, behind: int, layers: int) -> int:
        if self.teacher_layer == 'last':
            return layers - 1
        return max(layers + behind, 0)

    def _answers(
        self,
        students: Sequence[Predictions],
        asked: Sequence[Predictions],
        scores: Scores,
    ) -> list[Tensor]:
        """The student's queries that answer, (B, K) of each layer."""
        select = self.class_map
        if select is not None:
            students = [
                layer._replace(scores=select.select_student(layer.scores))
                for layer in students
            ]
            asked = [
                layer._replace(scores=select.select_teacher(layer.scores))
                for layer in asked
            ]
        return matched(students, asked, scores)

    def _match(
        self, answering: Predictions, asked: Predictions, scores: Scores
    ) -> Match:
        teacher_logits = asked.scores.flatten(0, 1)
        counts = [
            side.counts.flatten()
            for side in (answering, asked)
            if side.counts is not None
        ]
        match = Match(
            answering.scores.flatten(0, 1),
            teacher_logits,
            None,
            counts=torch.stack(counts).all(0) if counts else None,
            confidence=confidence(teacher_logits, scores, self.class_map),
            images=len(asked.scores),
        )
        if 'boxes' in self.wants:
            match.boxes = tuple(
                corners(side.boxes.float()).flatten(0, 1)
                for side in (answering, asked)
            )
        return match


def share_normalizer(
    matches: Sequence[Match], labels: Tensor | None, scores: Scores
) -> None:
    """Gives all layers the number of positives of the last, in place.

    Every layer's loss assigns the same objects; those whose query answers
    none of the teacher's count too.

    Args:
        matches: Of each layer.
        labels: (B Q,), of all queries of the last layer, or None.
        scores: What the scores mean.
    """
    last = matches[-1]
    everywhere = Match(
        last.student_logits,
        last.teacher_logits,
        labels,
        confidence=last.confidence,
    )
    total = positives(everywhere, scores)
    for match in matches:
        match.normalizer = total


@torch.no_grad()
def labels_of_layers(
    tap: LossTap, layers: Sequence[Predictions]
) -> list[Tensor] | None:
    """The labels of the queries of each layer, from the head's own loss.

    Which call belongs to which layer is found by value, with one wait for
    the device.

    Args:
        tap: The calls of the classification loss.
        layers: The student's predictions.

    Returns:
        (B, Q) of each layer, -1 for queries that it does not use; None if
        the loss did not see the scores of each layer.
    """
    rows = [
        layer.scores.flatten(0, 1)
        if layer.counts is None
        else layer.scores[layer.counts]
        for layer in layers
    ]
    calls = [(seen, _plain(target)) for seen, target in tap.calls]
    pairs = [
        (layer, call)
        for layer, ours in enumerate(rows)
        for call, (seen, target) in enumerate(calls)
        if target is not None and seen.shape == ours.shape
    ]
    if not pairs:
        return None
    equal = torch.stack(
        [
            (calls[call][0] == rows[layer].to(calls[call][0].dtype)).all()
            for layer, call in pairs
        ]
    ).tolist()
    found = dict(pair for pair, same in zip(pairs, equal, strict=True) if same)
    if len(found) < len(layers):
        return None
    return [
        _in_place(calls[found[index]][1], layer)
        for index, layer in enumerate(layers)
    ]


def _plain(target: object) -> Tensor | None:
    """(n,) labels, from labels or (labels, quality)."""
    if isinstance(target, (tuple, list)) and target:
        target = target[0]
    is_label = isinstance(target, Tensor) and not target.is_floating_point()
    return target if is_label and target.dim() == 1 else None


def _in_place(labels: Tensor, layer: Predictions) -> Tensor:
    """(n,) -> (B, Q)."""
    shape = layer.scores.shape[:2]
    if layer.counts is None:
        return labels.view(shape)
    return labels.new_full(shape, -1).masked_scatter(layer.counts, labels)
