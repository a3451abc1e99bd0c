"""Matched logits of detectors with queries: DETR and mask transformers."""

from collections.abc import Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
)

import torch
from torch import Tensor, nn

from mmrkkd.ops.checks import check_choice

from .base import Match, Scores
from .loss_tap import LossTap
from .method_tap import Call, noted_calls
from .query_heads import (
    BOXES,
    check_alike,
    check_query_head,
    check_reruns,
    query_head,
    query_scores,
    query_spec,
)
from .query_layers import layers_of, predicted_layers
from .query_matching import Predictions
from .query_pairs import PairedQueries, labels_of_layers
from .text_heads import is_text_head, text_scores

MATCHES = ('hungarian', 'teacher_queries')
# What a decoder is asked with, by the names of MMDetection's detectors.
QUERIES = ('query', 'query_pos', 'reference_points')


class QueryTap:
    """Notes what a query head put out, and what its loss was called with."""

    def __init__(self) -> None:
        self.outputs: Sequence[Sequence[Tensor]] | None = None
        self.decoder: list[Call] = []
        self.loss = LossTap()

    def see_outputs(
        self, module: nn.Module, args: tuple, outputs: Sequence
    ) -> None:
        """Hook after the head: forward(...) -> scores, boxes or masks."""
        self.outputs = outputs


class QueryReader(PairedQueries):
    """Reads the class logits of the queries of each decoder layer.

    The student's scores are what its head puts out on the way to its own
    losses, without the queries for denoising; the teacher's what it
    predicts. With ``match='hungarian'`` each of the teacher's surest
    queries is answered by the student's query that says most nearly the
    same, class and box or mask
    (:func:`~mmrkkd.distillers.readers.query_matching.matched`); with
    'teacher_queries' the student's decoder runs once more, on the teacher's
    own queries, and nothing needs to be matched.

    Args:
        match: 'hungarian', which any two heads with boxes, or with masks,
            can; or 'teacher_queries', for detectors of the same kind with
            embeddings of the same size, at the cost of a second pass
            through the student's decoder. Labels are not known there.
            Defaults to 'hungarian'.
        teacher_top: See :class:`PairedQueries`. Defaults to 100.
        layers: See :class:`PairedQueries`. Defaults to 'all'.
        teacher_layer: See :class:`PairedQueries`. Defaults to 'same'.
        locations: See :class:`PairedQueries`. Defaults to 'confidence'.

    Source: Chang et al. (DETRDistill), arXiv:2211.10156, for 'hungarian';
        Wang et al. (KD-DETR), arXiv:2211.08071, for 'teacher_queries'.
    """

    name = 'queries'
    rank = 1

    def __init__(
        self,
        match: str = 'hungarian',
        teacher_top: int = 100,
        layers: str = 'all',
        teacher_layer: str = 'same',
        locations: str = 'confidence',
    ) -> None:
        check_choice('match', match, MATCHES)
        super().__init__(teacher_top, layers, teacher_layer, locations)
        self.match = match
        if match == 'teacher_queries' and locations == 'foreground':
            raise ValueError(
                "match='teacher_queries' knows no labels, which locations="
                "'foreground' needs; use 'confidence' or 'all'"
            )

    def __repr__(self) -> str:
        return (
            f"queries, the teacher's {self.teacher_top} surest of an image, "
            f'{self.match}, {self.locations}, {self.layers} layers, '
            f"teacher's layer: {self.teacher_layer}"
        )

    @classmethod
    def fits(cls, model: nn.Module) -> bool:
        """See :meth:`Reader.fits`."""
        return query_head(model) is not None

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Refuses models whose queries cannot be compared.

        Raises:
            TypeError: one has no queries, or their scores or places mean
                different things.
            ValueError: the student cannot take the teacher's queries.
        """
        check_query_head('student', student, self.prompts)
        check_query_head('teacher', teacher, self.prompts)
        check_alike(query_head(student), query_head(teacher))
        if self.match == 'teacher_queries':
            check_reruns(student, teacher)

    def scores(self, model: nn.Module) -> Scores:
        """See :meth:`Reader.scores`."""
        head = query_head(model)
        if is_text_head(head):
            return text_scores(self.prompts)
        return query_scores(head)

    def learns_boxes(self, student: nn.Module) -> bool:
        """See :meth:`Reader.learns_boxes`: mask transformers do not."""
        return query_spec(query_head(student)).places == BOXES

    def want(
        self, what: str, loss: str, student: nn.Module, teacher: nn.Module
    ) -> None:
        """See :meth:`Reader.want`: mask transformers have no boxes."""
        if what == 'boxes' and not self.learns_boxes(student):
            raise TypeError(
                f"{loss} compares boxes, and the queries of the student's "
                f'{type(query_head(student)).__name__} answer with masks. '
                'Leave it out'
            )
        super().want(what, loss, student, teacher)

    @contextmanager
    def tap(self, student: nn.Module) -> Iterator[QueryTap]:
        """Notes the predictions of the student's forward in the block."""
        head, tap = query_head(student), QueryTap()
        with ExitStack() as stack:
            stack.enter_context(head.register_forward_hook(tap.see_outputs))
            loss = getattr(head, 'loss_cls', None)
            if isinstance(loss, nn.Module):
                stack.enter_context(
                    loss.register_forward_pre_hook(
                        tap.loss.see, with_kwargs=True
                    )
                )
            tap.decoder = stack.enter_context(self._noted_decoder(student))
            yield tap

    def read(
        self,
        taps: QueryTap,
        student: nn.Module,
        teacher: nn.Module,
        teacher_inputs: Tensor,
        data_samples: Sequence,
    ) -> list[Match]:
        """Pairs the student's queries with the teacher's: :meth:`Reader.read`.

        Returns:
            One match for each layer that learns, the last one at the end.

        Raises:
            RuntimeError: the student's head did not run.
            ValueError: the student's decoder takes other queries.
        """
        if taps.outputs is None:
            raise RuntimeError(
                f"the student's head {type(query_head(student)).__name__} was "
                'not called as a module in its training step, so its scores '
                'are not known'
            )
        with torch.no_grad(), self._noted_decoder(teacher) as decoder:
            teachers = self.predicted(teacher, teacher_inputs, data_samples)
        scores = self.scores(student)
        if self.match == 'hungarian':
            head = query_head(student)
            sources, boxes = query_spec(head).find(taps.outputs, head)
            shared = False
            students = layers_of(student, taps.outputs)
            labels = labels_of_layers(taps.loss, students)
            self.say_where_labels_are_from('by layer' if labels else 'none')
        else:
            labels, shared = None, True
            students = _rerun(student, taps.decoder, decoder)
            # What both passes of the student's decoder read.
            sources, boxes = taps.decoder[-1].arguments['memory'], None
        matches = self.pair(students, teachers, scores, labels, shared)
        for layer, match in zip(self.learning(students), matches, strict=True):
            if layer < len(students) - 1:
                match.prefix = f'd{layer}.'
            # One tensor for all layers, or one for each.
            is_one = isinstance(sources, Tensor)
            match.sources = (sources if is_one else sources[layer],)
            if 'boxes' in self.wants and boxes is not None:
                match.box_sources = (boxes if is_one else boxes[layer],)
        return matches

    def predicted(
        self, model: nn.Module, inputs: Tensor, data_samples: Sequence
    ) -> list[Predictions]:
        """See :meth:`PairedQueries.predicted`."""
        return predicted_layers(model, inputs, data_samples, self.prompts)

    def _noted_decoder(
        self, model: nn.Module
    ) -> AbstractContextManager[list[Call]]:
        if self.match == 'hungarian':
            return nullcontext([])
        return noted_calls(model, 'forward_decoder')


def _rerun(
    student: nn.Module, own: Sequence[Call], theirs: Sequence[Call]
) -> list[Predictions]:
    """What the student's decoder says of the teacher's queries, by layer.

    Args:
        student: The student.
        own: How the student's decoder was called in its forward.
        theirs: How the teacher's was.

    Raises:
        ValueError: the two decoders are asked in other ways.
    """
    own, theirs = own[-1].arguments, theirs[-1].arguments
    asked, given = (
        {name for name in QUERIES if side.get(name) is not None}
        for side in (own, theirs)
    )
    if asked != given:
        raise ValueError(
            "match='teacher_queries' needs decoders that are asked with the "
            f"same: the student's takes {sorted(asked)}, the teacher's "
            f"{sorted(given)}. Use match='hungarian'"
        )
    arguments = {**own, **{name: theirs[name] for name in asked}}
    if 'dn_mask' in arguments:
        # Of the student's queries for denoising, which are not among these.
        arguments['dn_mask'] = None
    decoded = student.forward_decoder(**arguments)
    head = query_head(student)
    scores, boxes = query_spec(head).find(head(**decoded), head)
    return [Predictions(*layer) for layer in zip(scores, boxes, strict=True)]
