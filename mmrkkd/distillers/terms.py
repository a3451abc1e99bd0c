"""The terms of a step: which there are, how they add up, how they pull."""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from torch import Tensor

from mmrkkd.losses import LogitLoss
from mmrkkd.losses.feature import FeatureLoss, FeaturePair
from mmrkkd.losses.placement import Placement

from .class_map import ClassMap
from .gradient_share import gradient_telemetry
from .readers import Match, Scores
from .readers.base import BESIDE_SCORES
from .readers.locations import divisor, located
from .telemetry import ROWS_PER_STEP, agreement

TASK_NORM = 'kd/grad_norm_task'


class LossParts(NamedTuple):
    """The two sums that a distiller's loss is made of, scalars."""

    task: Tensor
    distillation: Tensor

    @property
    def grad_fn(self) -> object:
        """Where the graph of both begins, for those who walk it.

        MMEngine's ``detect_anomalous_params`` looks for parameters that no
        loss reaches.
        """
        return (self.task + self.distillation).grad_fn


def add_terms(terms: dict, new: dict) -> None:
    """Adds terms to those of the step, in place.

    Raises:
        ValueError: a key is taken.
    """
    taken = sorted(set(terms) & set(new))
    if taken:
        # Those of this package were refused before training.
        raise ValueError(
            f'two losses are logged under the same key {taken[0]!r}: let a '
            'loss of your own return another key, or use it once; a key of '
            "the student's own losses is taken too"
        )
    terms.update(new)


def task_terms(views: Sequence[dict], weight: float) -> dict:
    """The student's own losses times beta, added up over the views.

    MMPretrain's heads call theirs 'loss', the key under which MMEngine
    keeps the total.

    Args:
        views: What the student's forward gave for each view.
        weight: beta.
    """
    terms = {}
    for name, value in views[0].items():
        if 'loss' in name:
            value = weighted_sum([losses[name] for losses in views], weight)
        terms['loss_task' if name == 'loss' else name] = value
    return terms


def weighted_sum(
    views: Sequence[Tensor | Sequence[Tensor]], weight: float
) -> Tensor | list[Tensor]:
    """A loss of several views, added up and weighted.

    Args:
        views: The loss of each view: a tensor, or a list of tensors where a
            detector has one for each level.
        weight: Multiplies the sum.
    """
    if isinstance(views[0], (list, tuple)):
        return [
            weighted_sum(levels, weight) for levels in zip(*views, strict=True)
        ]
    total = sum(views[1:], start=views[0])
    # Times 1 would still be a step in the graph.
    return total if weight == 1 else weight * total


def total_loss(terms: dict) -> Tensor:
    """What MMEngine makes of some terms: means of all losses, added up."""
    total = 0.0
    for name, value in terms.items():
        if 'loss' in name:
            total = total + sum(level_means(value))
    return total


def level_means(loss: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The means of a loss that has a tensor for each level, or of its one."""
    levels = loss if isinstance(loss, (list, tuple)) else [loss]
    return [level.mean() for level in levels]


def loss_parts(terms: dict, task_names: Collection[str]) -> LossParts:
    """The task's losses and those of distillation, added up apart.

    Args:
        terms: Those of a step.
        task_names: The keys of the task's.
    """
    task = {k: v for k, v in terms.items() if k in task_names}
    rest = {k: v for k, v in terms.items() if k not in task_names}
    return LossParts(total_loss(task), total_loss(rest))


def logit_terms(
    losses: Iterable[LogitLoss],
    match: Match,
    class_map: ClassMap,
    scores: Scores,
    pulled_with: dict | None = None,
    telemetry: bool = True,
) -> dict[str, Tensor]:
    """The losses and telemetry of one head's matched logits.

    Args:
        losses: The logit losses.
        match: The head's logits, of one view or stacked.
        class_map: Which channels are compared.
        scores: What the scores of a row mean.
        pulled_with: The task's terms, to log how hard each term pulls at
            the logits, one of boxes at what says where they are; None to
            leave it out.
        telemetry: Whether to say how well the student follows. Defaults to
            True.

    Returns:
        Log key, with the match's prefix, to scalar.
    """
    student = class_map.select_student(match.student_logits)
    teacher = class_map.select_teacher(match.teacher_logits)

    def select(
        placement: Placement,
        more: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> tuple:
        labels, weight = compared(match, class_map, scores, placement)
        if more is not None:
            factor = more(student, teacher)
            weight = factor if weight is None else weight * factor
        total = divisor(match, placement.normalizer, weight)
        return student, teacher, labels, weight, total

    terms, pulling, elsewhere = {}, {}, []
    for loss in losses:
        asked = [getattr(match, name) for name in loss.asks_for]
        values = {
            name: match.scale * value if 'loss' in name else value
            for name, value in loss.located(select, *asked).items()
        }
        add_terms(terms, values)
        if match.box_sources and BESIDE_SCORES.intersection(loss.asks_for):
            elsewhere.append(values)
        else:
            pulling.update({k: v for k, v in values.items() if 'loss' in k})
    if pulled_with is not None:
        pulling['task'] = total_loss(pulled_with)
        add_terms(terms, gradient_telemetry(pulling, match.sources))
        for values in elsewhere:
            add_terms(terms, pulls_at(match.box_sources, values, pulled_with))
    if telemetry:
        rows, counts = looked_at(match, class_map, scores)
        if rows is not None:
            student, teacher = student[rows], teacher[rows]
        add_terms(
            terms,
            agreement(
                student, teacher, activation=scores.activation, counts=counts
            ),
        )
    return {match.prefix + name: value for name, value in terms.items()}


def compared(
    match: Match,
    class_map: ClassMap,
    scores: Scores,
    placement: Placement = Placement(),  # noqa: B008
) -> tuple[Tensor | None, ...]:
    """Labels and weights of a match where a loss applies.

    Args:
        match: The head's logits.
        class_map: Which channels are compared.
        scores: What the scores of a row mean.
        placement: Where. Defaults to where the reader says.

    Returns:
        As :meth:`ClassMap.select_samples` gives them.
    """
    return class_map.select_samples(
        match.labels,
        located(match, scores, placement, class_map),
        match.student_logits.shape[-1],
    )


def looked_at(
    match: Match, class_map: ClassMap, scores: Scores
) -> tuple[Tensor | None, Tensor | None]:
    """The rows that the telemetry looks at, and which of them count.

    Of a dense head those that the teacher is surest of: all others are
    background, on which any two models agree.

    Returns:
        Indices of rows, and (N,) bool; None each for all.
    """
    _, weight = compared(match, class_map, scores)
    if match.images is None:
        return None, None if weight is None else weight != 0
    sure = match.confidence if weight is None else match.confidence * weight
    return sure.topk(min(ROWS_PER_STEP, len(sure)), sorted=False).indices, None


def feature_terms(
    losses: Sequence[FeatureLoss],
    views: Sequence[Sequence[FeaturePair]],
    pulled_with: dict | None = None,
) -> dict[str, Tensor]:
    """The losses between features, means over the views.

    Args:
        losses: The feature losses.
        views: For each view the features of each loss.
        pulled_with: The task's terms, to log how hard each term pulls at
            the student's features that it compares, beside the task; None
            to leave it out.

    Returns:
        Log key to scalar; the task's norm at the features of a loss is
        ``kd/grad_norm_task_at_<loss>``, see :func:`common_name`.
    """
    terms = {}
    for loss, pairs in zip(losses, zip(*views, strict=True), strict=True):
        values = [loss(pair) for pair in pairs]
        means = {
            name: sum(value[name] for value in values) / len(values)
            if len(values) > 1
            else values[0][name]
            for name in values[0]
        }
        add_terms(terms, means)
        if pulled_with is not None:
            sources = [value for pair in pairs for value in pair.student]
            add_terms(terms, pulls_at(sources, means, pulled_with))
    return terms


def pulls_at(
    sources: Sequence[Tensor], values: dict[str, Tensor], task: dict
) -> dict[str, Tensor]:
    """How hard the terms of a loss pull at what it compares.

    Args:
        sources: The student's.
        values: Log key to scalar; those that are optimised count.
        task: The task's terms.

    Returns:
        As :func:`gradient_telemetry`, but that the task's norm there is
        ``kd/grad_norm_task_at_<loss>``, see :func:`common_name`.
    """
    pulling = {k: v for k, v in values.items() if 'loss' in k}
    pulling['task'] = total_loss(task)
    shares = gradient_telemetry(pulling, sources)
    # The task's pull at the logits has that name already.
    shares.pop('kd/grad_share_task', None)
    if TASK_NORM in shares:
        place = f'{TASK_NORM}_at_{common_name(values)}'
        shares[place] = shares.pop(TASK_NORM)
    return shares


def common_name(terms: Iterable[str]) -> str:
    """What the terms of one loss are called together.

    Args:
        terms: Log keys; those with 'loss' in them count.

    Returns:
        The words that they begin with, without 'loss_': 'fgd' of FGD's
        four; all of them where that is nothing.
    """
    names = [name.replace('loss_', '') for name in terms if 'loss' in name]
    words = zip(*(name.split('_') for name in names), strict=False)
    common = takewhile(lambda each: len(set(each)) == 1, words)
    return '_'.join(each[0] for each in common) or '+'.join(names)
