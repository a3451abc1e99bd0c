"""Where the smaller KL goes with the wrong class."""

import argparse
from itertools import permutations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrkkd.ops import exact_kendall_tau
from mmrkkd.report.curves import COLOURS
from mmrkkd.report.matched_logits import MatchedLogits
from mmrkkd.report.selection import Selection

from .base import PaperFigure
from .drawing import decorate, panels, written
from .options import positive, whole_number
from .softening import divergence, probabilities


class MisleadingKL(PaperFigure):
    """The image on which two students show it most clearly."""

    title = 'A smaller KL with the wrong class'
    source = 'RKKD, figure 2'
    reading = (
        'The student on the left is nearer to the teacher by KL and puts a '
        'wrong class first; the one on the right is farther away and right: '
        'a small KL does not keep the first class.'
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """See :meth:`PaperFigure.add_options`."""
        parser.add_argument(
            '--temperature',
            type=positive,
            default=1.0,
            metavar='T',
            help='of KL and probabilities (default: %(default)g)',
        )
        parser.add_argument(
            '--classes',
            type=whole_number,
            default=8,
            metavar='N',
            help="the teacher's leading classes that are drawn (default: "
            '%(default)s)',
        )

    def check(self, selection: Selection, args: argparse.Namespace) -> None:
        """See :meth:`PaperFigure.check`."""
        labels = list(dict.fromkeys(run.label for run in selection.students))
        if len(labels) < 2:
            raise ValueError(
                'the figure misleading-kl compares two students of a '
                f'teacher, got {", ".join(labels) or "none"}; give another '
                'RUN'
            )

    def numbers(self, found: MatchedLogits, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        A sample counts for an ordered pair of students where the teacher
        and one of the two are right and the other is wrong: ``comparable``
        is how many there are, ``misleading`` those in which the wrong one
        has the smaller KL. ``case`` is that with the greatest difference of
        KL; None if there is none.
        """
        if (found.labels < 0).all():
            raise ValueError(
                'the figure misleading-kl needs true classes, and what the '
                'models are compared on has none: these detectors are '
                'compared on places, not on annotated boxes'
            )
        kl = {
            label: divergence(
                logits, found.teacher, args.temperature, found.activation
            )
            for label, logits in found.students.items()
        }
        gaps = _gaps(found, kl)
        values = np.array(list(gaps.values()))
        comparable = int((values > -np.inf).sum())
        misleading = int((values > 0).sum())
        note = (
            f'Of {comparable} times that the teacher and one student are '
            'right and another student is wrong, the wrong one has the '
            f'smaller KL in {misleading}.'
        )
        case = None
        if misleading:
            students = max(gaps, key=lambda pair: gaps[pair].max())
            row = int(gaps[students].argmax())
            case = _case(found, row, students, kl, args)
        else:
            note += ' None was found: draw more --images, or give other runs.'
        return dict(
            samples=len(found.teacher),
            temperature=args.temperature,
            comparable=comparable,
            misleading=misleading,
            case=case,
            note=note,
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        case = numbers['case']
        if case is None:
            figure, (axis,) = panels(1, size=(8.0, 2.0))
            axis.set_axis_off()
            axis.text(
                0.5, 0.5, numbers['note'], ha='center', va='center', wrap=True
            )
            return figure
        figure, axes = panels(3, size=(3.6, 3.8))
        _bars(axes[1], case, case['teacher'], 0)
        for axis, student, number in (
            (axes[0], case['students'][0], 3),
            (axes[2], case['students'][1], 4),
        ):
            _bars(axis, case, student, number)
        # One scale for the three.
        widest = max(axis.get_xlim()[1] for axis in axes)
        for axis in axes:
            axis.set_xlim(0, widest)
        figure.suptitle(f'True class: {case["true"]} (star)', fontsize=12)
        return figure


def _gaps(
    found: MatchedLogits, kl: dict[str, np.ndarray]
) -> dict[tuple[str, str], np.ndarray]:
    """By how much the right student's KL is greater than the wrong one's.

    Args:
        found: The logits.
        kl: Student to (N, ).

    Returns:
        (wrong, right) to (N, ): minus infinity in the samples in which not
        the teacher and the second are right and the first wrong.
    """
    right = {
        label: logits.argmax(1) == found.labels
        for label, logits in found.models.items()
    }
    taught = right[found.teacher_label]
    return {
        (wrong, better): np.where(
            taught & ~right[wrong] & right[better],
            kl[better] - kl[wrong],
            -np.inf,
        )
        for wrong, better in permutations(found.students, 2)
    }


def _case(
    found: MatchedLogits,
    row: int,
    students: tuple[str, str],
    kl: dict[str, np.ndarray],
    args: argparse.Namespace,
) -> dict:
    """One sample with the classes that are worth drawing."""
    leading = np.argsort(-found.teacher[row], kind='stable')
    first = [found.students[label][row].argmax() for label in students]
    shown = list(dict.fromkeys([*leading[: args.classes], *first]))

    def model(label: str, logits: np.ndarray) -> dict:
        p = probabilities(
            logits[row : row + 1], args.temperature, found.activation
        )[0]
        return dict(
            label=label,
            probabilities=p[shown].tolist(),
            first=found.names[int(p.argmax())],
        )

    teacher = torch.from_numpy(found.teacher[row])
    return dict(
        sample=found.samples[row],
        true=found.names[found.labels[row]],
        classes=[found.names[index] for index in shown],
        teacher=model(found.teacher_label, found.teacher),
        students=[
            dict(
                model(label, found.students[label]),
                kl=float(kl[label][row]),
                tau=float(
                    exact_kendall_tau(
                        torch.from_numpy(found.students[label][row]), teacher
                    )
                ),
            )
            for label in students
        ],
    )


def _bars(axis: Axes, case: dict, model: dict, number: int) -> None:
    title = f'{model["label"]}: {model["first"]}'
    if 'kl' in model:
        kl, tau = written(model['kl'], '.3f'), written(model['tau'], '.2f')
        title += f'\nKL {kl}, tau {tau}'
    decorate(axis, title, 'probability', '')
    axis.grid(axis='y', visible=False)
    names = [
        f'{name} *' if name == case['true'] else name
        for name in case['classes']
    ]
    axis.barh(names, model['probabilities'], color=COLOURS[number])
    axis.invert_yaxis()
