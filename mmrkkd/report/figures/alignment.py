"""Where students rank the class that the teacher ranks r-th."""

import argparse

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mmrkkd.ops import exact_kendall_tau
from mmrkkd.report.matched_logits import MatchedLogits

from .base import PaperFigure
from .drawing import count_ranks, decorate, panels, written

# More places than that are put together: a cell must be seen.
MOST_CELLS = 50


class Alignment(PaperFigure):
    """A map for each student: the teacher's rank across, its own up."""

    title = "Where students rank the teacher's r-th class"
    source = 'RKKD, figure 8'
    reading = (
        'Each column shares out 100 % over the ranks that a student gives to '
        "the teacher's r-th class: the narrower the dark diagonal, the "
        'better it keeps the order.'
    )

    def numbers(self, found: MatchedLogits, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        ``share[i][j]`` is the percentage of the classes in the teacher's
        i-th group of ranks that a student puts into the j-th group;
        ``distance`` the mean difference of the two ranks.
        """
        classes = found.teacher.shape[1]
        edges = np.linspace(0, classes, min(classes, MOST_CELLS) + 1).round()
        groups = np.searchsorted(edges, np.arange(classes), 'right') - 1
        teacher = ranks(found.teacher)
        students = {}
        for label, logits in found.students.items():
            own = ranks(logits)
            counts = np.zeros([len(edges) - 1] * 2)
            np.add.at(counts, (groups[teacher], groups[own]), 1)
            tau = exact_kendall_tau(
                torch.from_numpy(logits), torch.from_numpy(found.teacher)
            )
            students[label] = dict(
                share=(100 * counts / counts.sum(1, keepdims=True)).tolist(),
                tau=float(tau.nanmean()),
                distance=float(np.abs(own - teacher).mean()),
                first_kept=100 * float((own[teacher == 0] == 0).mean()),
            )
        return dict(
            samples=len(teacher),
            classes=classes,
            edges=edges.astype(int).tolist(),
            students=students,
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        figure, axes = panels(len(numbers['students']), size=(4.2, 4.2))
        edges = np.array(numbers['edges']) + 0.5
        for axis, (label, one) in zip(
            axes, numbers['students'].items(), strict=True
        ):
            title = f'{label}: tau {written(one["tau"], ".2f")}'
            decorate(axis, title, "teacher's rank", "student's rank")
            axis.grid(False)
            image = axis.pcolormesh(
                edges,
                edges,
                np.array(one['share']).T,
                cmap='Blues',
                norm=LogNorm(0.1, 100, clip=True),
            )
            axis.set_aspect('equal')
            axis.invert_yaxis()
            count_ranks(axis, upwards=True)
        figure.colorbar(
            image,
            ax=axes,
            format='%g',
            label="% of the teacher's rank",
            shrink=0.7,
            aspect=30,
        )
        return figure


def ranks(logits: np.ndarray) -> np.ndarray:
    """The place of each class in its row, 0 for the greatest.

    Args:
        logits: (N, C); ties count in the order of the classes.

    Returns:
        (N, C), whole numbers from 0 to C - 1.
    """
    order = np.argsort(-logits, axis=1, kind='stable')
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(logits.shape[1])[None], 1)
    return places
