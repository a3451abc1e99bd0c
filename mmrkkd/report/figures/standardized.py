"""What is left of the lower ranks under the temperature, and under LSKD."""

import argparse

import numpy as np
from matplotlib.figure import Figure

from mmrkkd.report.matched_logits import MatchedLogits

from .base import PaperFigure
from .drawing import (
    count_ranks,
    decorate,
    legend_below,
    log_heights,
    look,
    panels,
    same_heights,
)
from .options import positive
from .softening import probabilities, standardized


class Standardized(PaperFigure):
    """Mean probability by the teacher's rank, in KD and in LSKD."""

    title = 'Probabilities under KD and under LSKD'
    source = 'RKKD, figure 6'
    reading = (
        'The mean probability that each loss sees of the class that the '
        'teacher ranks first, second and so on: the steeper the fall, the '
        'less the lower ranks add to the KL.'
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """See :meth:`PaperFigure.add_options`."""
        parser.add_argument(
            '--temperature',
            type=positive,
            default=4.0,
            metavar='T',
            help='of KD (default: %(default)g)',
        )
        parser.add_argument(
            '--base-temperature',
            type=positive,
            default=2.0,
            metavar='T',
            help='of LSKD, after standardising (default: %(default)g)',
        )

    def numbers(self, found: MatchedLogits, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        ``kd`` and ``lskd`` hold the mean over the samples of the
        probability of the class that the teacher ranks first, second, ...
        """
        order = np.argsort(-found.teacher, axis=1, kind='stable')
        models = {}
        for label, logits in found.models.items():
            softened = dict(
                kd=(logits, args.temperature),
                lskd=(standardized(logits), args.base_temperature),
            )
            models[label] = {
                key: np.take_along_axis(
                    probabilities(z, temperature, found.activation), order, 1
                )
                .mean(0)
                .tolist()
                for key, (z, temperature) in softened.items()
            }
        return dict(
            samples=len(order),
            temperature=args.temperature,
            base_temperature=args.base_temperature,
            models=models,
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        figure, axes = panels(2)
        titles = dict(
            kd=f'KD: T = {numbers["temperature"]:g}',
            lskd=f'LSKD: standardised, T = {numbers["base_temperature"]:g}',
        )
        for axis, (key, title) in zip(axes, titles.items(), strict=True):
            decorate(axis, title, "teacher's rank", 'mean probability')
            log_heights(axis)
            count_ranks(axis)
            for number, (label, one) in enumerate(numbers['models'].items()):
                places = range(1, len(one[key]) + 1)
                axis.plot(places, one[key], label=label, **look(number))
        same_heights(axes)
        legend_below(figure, axes)
        return figure
