"""The boxes, scores and labels that a RoI stage learns from."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmrkkd.ops import checks

from .box_heads import as_box_logits, box_scores
from .cross_box_head import Call
from .loss_tap import LossTap, arguments


class Run(NamedTuple):
    """One call of a box head, with the boxes that were extracted before it."""

    scores: Tensor  # (R, ...)
    rois: Tensor  # (R, 5)
    images: int  # Images in the features that they were extracted from.
    deltas: Tensor | None = None  # (R, 4), or (R, 4 C) by class.
    labels: Tensor | None = None  # (R,)


class StageTap:
    """Notes what passes through one RoI stage of the student's forward.

    The scores are the box head's output, the boxes what its RoI extractor
    was last given before; the classification loss says which labels belong
    to them. Heads run more often than they learn (hard example mining) and
    extract more often than they classify (masks, wider boxes).

    After :meth:`close`, ``scores`` (R, C + 1), ``labels`` (R,) or None,
    ``scored_rois`` (R, 5) and ``deltas``, by which they are moved, are those
    that the stage learns from.
    """

    def __init__(self) -> None:
        self.rois: Tensor | None = None
        self.images = 0
        self.runs: list[Run] = []
        self.loss = LossTap()
        # The head's calls, where the teacher's head is crossed.
        self.calls: Sequence[Call] = ()

    def see_rois(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Hook before the RoI extractor: forward(features, rois)."""
        features, self.rois, *_ = arguments(module, args, kwargs)
        self.images = len(features[0])

    def see_scores(
        self, module: nn.Module, args: tuple, output: Sequence
    ) -> None:
        """Hook after the box head: forward(...) -> scores, boxes, ..."""
        # A head without boxes computes no loss.
        if len(output[0]):
            deltas = output[1] if len(output) > 1 else None
            self.runs.append(Run(output[0], self.rois, self.images, deltas))

    def close(self, head: nn.Module, device: torch.device) -> None:
        """Finds the boxes, scores and labels that the stage learns from.

        Args:
            head: The stage's box head.
            device: Of the empty result where no box was sampled.

        Raises:
            RuntimeError: they do not belong together, or there are several.
        """
        if self.runs:
            run = self._learnt_run(type(head).__name__)
            self.scores = as_box_logits(head, run.scores)
        else:
            run = Run(
                torch.zeros(0, box_scores(head).channels, device=device),
                torch.zeros(0, 5, device=device),
                0,
                labels=torch.zeros(0, dtype=torch.long, device=device),
            )
            self.scores = run.scores
        self.source, self.images = run.scores, run.images
        self.scored_rois, self.labels = run.rois, run.labels
        self.deltas = run.deltas

    def _learnt_run(self, head: str) -> Run:
        runs = [
            run._replace(labels=self.loss.labels_of(run.scores))
            for run in self.runs
        ]
        learnt = [run for run in runs if run.labels is not None] or runs
        pulled = [run for run in learnt if run.scores.requires_grad]
        if len(pulled) > 1:
            raise RuntimeError(
                f"the student's box head {head} learns from {len(pulled)} "
                'sets of boxes in one step; one was expected, to be scored '
                'by the teacher'
            )
        run = (pulled or learnt)[-1]
        extracted = None if run.rois is None else len(run.rois)
        if extracted != len(run.scores):
            raise RuntimeError(
                f'the RoI head scored {len(run.scores)} boxes but extracted '
                f'{extracted or "none"}: it is not a standard RoI head, '
                "and its logits cannot be matched with the teacher's"
            )
        return run


def in_teachers_batch(
    tap: StageTap, student: nn.Module, images: int
) -> Tensor:
    """A student's boxes with the index of the image in the teacher's batch.

    An index outside of the batch would make RoIAlign read foreign memory,
    without a word.
    """
    rois, seen = tap.scored_rois, tap.images
    if not len(rois):
        return rois
    inside = ((rois[:, 0] >= 0) & (rois[:, 0] < seen)).all()
    message = f"an index of the student's boxes is none of its {seen} images"
    if not checks.at_hand(rois):
        # The step does not wait for the answer; a wrong one ends the process.
        torch._assert_async(inside, message)
    elif not inside:
        raise ValueError(f'{message}: {rois[:, 0].unique().tolist()}')
    if seen == images:
        return rois
    if seen != images * getattr(student.roi_head, 'num_branch', 1):
        raise ValueError(
            f"the student's boxes lie in {seen} images, and the teacher sees "
            f'{images}: a student that repeats or splits its images inside '
            'can only be distilled where it says how often '
            '(roi_head.num_branch, as TridentNet does)'
        )
    # TridentNet's branches see the whole batch, one after another.
    return torch.cat([rois[:, :1] % images, rois[:, 1:]], 1)
