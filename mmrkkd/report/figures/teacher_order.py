"""The students' logits in the order of the teacher's ranks."""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure

from mmrkkd.ops import exact_kendall_tau
from mmrkkd.report.curves import COLOURS
from mmrkkd.report.matched_logits import MatchedLogits

from .base import PaperFigure
from .drawing import (
    count_ranks,
    decorate,
    legend_below,
    look,
    or_gaps,
    panels,
    same_heights,
    written,
)

QUANTILES = (0.1, 0.9)


class TeacherOrder(PaperFigure):
    """Mean logit by the teacher's rank, a panel for each student."""

    title = "Logits in the order of the teacher's ranks"
    source = 'LRA, figure 3'
    reading = (
        "The teacher's logits fall from its first class to its last by "
        'construction: the more steadily those of a student fall beside '
        'them, and the narrower their band, the better it keeps the order.'
    )

    def numbers(self, found: MatchedLogits, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        Of each sample's logits minus their mean, in the order of the
        teacher's ranks: ``mean`` over the samples, ``low`` and ``high`` the
        quantiles of 10 and 90 %; ``tau`` is the mean of exact tau-b.
        """
        order = np.argsort(-found.teacher, axis=1, kind='stable')
        teacher = torch.from_numpy(found.teacher)
        models = {}
        for label, logits in found.models.items():
            centred = logits - logits.mean(1, keepdims=True)
            sorted_logits = np.take_along_axis(centred, order, 1)
            low, high = np.quantile(sorted_logits, QUANTILES, axis=0)
            tau = exact_kendall_tau(torch.from_numpy(logits), teacher)
            models[label] = dict(
                mean=sorted_logits.mean(0).tolist(),
                low=low.tolist(),
                high=high.tolist(),
                tau=float(tau.nanmean()),
            )
        return dict(
            samples=len(order), teacher=found.teacher_label, models=models
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        models = dict(numbers['models'])
        teacher = models.pop(numbers['teacher'])
        figure, axes = panels(len(models), size=(4.4, 3.8))
        places = np.arange(1, len(teacher['mean']) + 1)
        for number, (axis, (label, one)) in enumerate(
            zip(axes, models.items(), strict=True), 1
        ):
            title = f'{label}: tau {written(one["tau"], ".2f")}'
            decorate(axis, title, "teacher's rank", 'logit minus the mean')
            axis.fill_between(
                places,
                or_gaps(one['low']),
                or_gaps(one['high']),
                color=COLOURS[number % len(COLOURS)],
                alpha=0.2,
                linewidth=0,
            )
            axis.plot(places, one['mean'], label=label, **look(number))
            axis.plot(
                places, teacher['mean'], label=numbers['teacher'], **look(0)
            )
            count_ranks(axis)
        same_heights(axes)
        legend_below(figure, axes)
        return figure
