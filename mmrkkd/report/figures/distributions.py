"""How the logits of teacher and students are spread, and what is left."""

import argparse

import numpy as np
from matplotlib.figure import Figure

from mmrkkd.report.matched_logits import MatchedLogits

from .base import PaperFigure
from .drawing import decorate, legend_below, look, panels
from .options import positive, whole_number
from .softening import probabilities

# Probabilities below this are drawn at it.
LEAST = 1e-6
SMALL = 0.01


class Distributions(PaperFigure):
    """A histogram of the logits, and one of the probabilities."""

    title = 'Logits and probabilities of teacher and students'
    source = 'RKKD, figure 1'
    reading = (
        'Logits that spread over the left panel and crowd at the left edge '
        'of the right one are classes whose order the probabilities hide: '
        'only a loss on the order still sees them.'
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """See :meth:`PaperFigure.add_options`."""
        parser.add_argument(
            '--temperature',
            type=positive,
            default=1.0,
            metavar='T',
            help='of the probabilities (default: %(default)g)',
        )
        parser.add_argument(
            '--bins',
            type=whole_number,
            default=40,
            metavar='N',
            help='of each histogram (default: %(default)s)',
        )

    def numbers(self, found: MatchedLogits, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        ``share`` is the percentage of all N C values in each bin;
        ``small`` that of probabilities below 1 %; ``deviation`` the mean of
        each sample's standard deviation (divisor C - 1) over the classes.
        """
        finite = [z[np.isfinite(z)] for z in found.models.values()]
        values = np.concatenate(finite)
        logit_edges = np.linspace(values.min(), values.max(), args.bins + 1)
        edges = np.linspace(np.log10(LEAST), 0, args.bins + 1)
        models = {}
        for label, logits in found.models.items():
            p = probabilities(logits, args.temperature, found.activation)
            models[label] = dict(
                logits=_shares(logits, logit_edges),
                probabilities=_shares(np.log10(p.clip(LEAST, 1)), edges),
                small=100 * float((p < SMALL).mean()),
                deviation=float(logits.std(1, ddof=1).mean()),
            )
        return dict(
            samples=len(found.teacher),
            temperature=args.temperature,
            logit_edges=logit_edges.tolist(),
            probability_edges=(10**edges).tolist(),
            models=models,
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        figure, axes = panels(2)
        left, right = axes
        decorate(left, 'Logits', 'logit', '% of all values')
        decorate(
            right,
            f'Probabilities, T = {numbers["temperature"]:g}',
            f'probability (those below {LEAST:g} at the edge)',
            '% of all values',
        )
        right.set_xscale('log')
        right.axvline(SMALL, color='#777777', linewidth=0.8, linestyle=':')
        for number, (label, one) in enumerate(numbers['models'].items()):
            # The line is the same in both panels: one legend for both.
            name = f'{label} ({one["small"]:.0f} % below 0.01)'
            for axis, key, edges in (
                (left, 'logits', numbers['logit_edges']),
                (right, 'probabilities', numbers['probability_edges']),
            ):
                axis.stairs(one[key], edges, label=name, **look(number))
        legend_below(figure, axes)
        return figure


def _shares(values: np.ndarray, edges: np.ndarray) -> list[float]:
    counts, _ = np.histogram(values, edges)
    return (100 * counts / values.size).tolist()
