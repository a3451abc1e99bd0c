"""Which logits KL pulls at, and which the ranking term."""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmrkkd.ops import kendall_tau, standardize
from mmrkkd.ops.divergence import DIVERGENCES
from mmrkkd.report.matched_logits import MatchedLogits

from .base import PaperFigure
from .drawing import (
    decorate,
    legend_below,
    log_heights,
    look,
    or_gaps,
    panels,
    same_heights,
)
from .options import positive, whole_number

TERMS = dict(kl='KL', rank='ranking')


class Gradients(PaperFigure):
    """Shares of two gradients by the value of the student's logit."""

    title = 'Gradients of KL and of the ranking by the logit'
    source = 'RKKD, figure 7'
    reading = (
        "How much of a term's pull on a sample falls on one class, by the "
        'logit that the student gives it: a level line near 1/C pulls at '
        'all classes alike, a steep one leaves the small logits alone.'
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """See :meth:`PaperFigure.add_options`."""
        parser.add_argument(
            '--temperature',
            type=positive,
            default=4.0,
            metavar='T',
            help='of KL (default: %(default)g)',
        )
        parser.add_argument(
            '--steepness',
            type=positive,
            default=1.0,
            metavar='K',
            help='of the ranking (default: %(default)g)',
        )
        parser.add_argument(
            '--bins',
            type=whole_number,
            default=20,
            metavar='N',
            help="of the logits' values, of as many logits each (default: "
            '%(default)s)',
        )

    def numbers(self, found: MatchedLogits, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        ``share`` is the mean of |g_c| / sum_c |g_c|, in percent, over the
        logits in a bin, g the gradient of a sample's term with respect to
        the student's raw logits; ``size`` that of |g_c| itself, at a weight
        of 1 and KL times T^2. A sample without gradient is left out.
        """
        teacher = torch.from_numpy(found.teacher)
        students = {}
        for label, logits in found.students.items():
            terms = gradients(
                torch.from_numpy(logits),
                teacher,
                args.temperature,
                args.steepness,
                found.activation,
            )
            students[label] = _binned(logits, terms, args.bins)
        return dict(
            samples=len(found.teacher),
            classes=found.teacher.shape[1],
            temperature=args.temperature,
            steepness=args.steepness,
            students=students,
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        figure, axes = panels(len(numbers['students']), size=(4.4, 3.8))
        even = 100 / numbers['classes']
        for axis, (label, one) in zip(
            axes, numbers['students'].items(), strict=True
        ):
            decorate(
                axis,
                label,
                "student's logit",
                "share of the term's gradient, %",
            )
            log_heights(axis)
            for number, (term, name) in enumerate(TERMS.items(), 2):
                axis.plot(
                    one['logit'],
                    or_gaps(one[term]['share']),
                    label=name,
                    marker='.',
                    **look(number),
                )
            axis.axhline(
                even, color='#777777', linestyle=':', label='1/C', zorder=0
            )
        same_heights(axes)
        legend_below(figure, axes)
        return figure


def gradients(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    steepness: float,
    activation: str = 'softmax',
) -> dict[str, np.ndarray]:
    """The two terms' gradients at the student's raw logits.

    Args:
        student: (N, C).
        teacher: (N, C).
        temperature: T of KL, whose value is multiplied by T^2.
        steepness: k of the ranking, minus tau of the standardised logits.
        activation: 'softmax' or 'sigmoid'. Defaults to 'softmax'.

    Returns:
        'kl' and 'rank' to (N, C), each of its sample's own term.
    """
    found = {}
    for name in TERMS:
        logits = student.clone().requires_grad_()
        if name == 'kl':
            divergence = DIVERGENCES[activation]
            term = temperature**2 * divergence(logits, teacher, temperature)
        else:
            term = -kendall_tau(
                standardize(logits), standardize(teacher), steepness=steepness
            )
        (gradient,) = torch.autograd.grad(term.sum(), logits)
        found[name] = gradient.numpy()
    return found


def _binned(
    logits: np.ndarray, terms: dict[str, np.ndarray], bins: int
) -> dict:
    order = np.argsort(logits, axis=None, kind='stable')
    parts = [part for part in np.array_split(order, bins) if len(part)]
    result = dict(logit=[float(logits.ravel()[part].mean()) for part in parts])
    for name, gradient in terms.items():
        size = np.abs(gradient)
        total = size.sum(1, keepdims=True)
        share = np.divide(
            100 * size, total, np.full_like(size, np.nan), where=total > 0
        )
        result[name] = {
            key: [_mean(values.ravel()[part]) for part in parts]
            for key, values in (('share', share), ('size', size))
        }
    return result


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float('nan')
