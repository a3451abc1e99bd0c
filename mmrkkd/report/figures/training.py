"""Score, order and divergence while the students were trained."""

import argparse

from matplotlib.figure import Figure

from mmrkkd.report.curves import Curve, curves_figure
from mmrkkd.report.logs import log_files, means_of
from mmrkkd.report.measurements import scores
from mmrkkd.report.panels import VALIDATION, thinned, title_of, unit
from mmrkkd.report.selection import Selection
from mmrkkd.report.training_run import Run

from .base import PaperFigure

TAU, KL = 'kd/tau', 'kd/kl'


class Training(PaperFigure):
    """Three panels: the metric, tau and KL to the teacher."""

    title = 'Score, tau and KL during the training'
    source = 'RKKD, figure 3'
    reading = (
        'A student whose tau rises while its KL stays has learnt more of the '
        "teacher's order; whether that helps is seen in the score, and a "
        'difference within the band of the seeds may be chance.'
    )
    needs = 'runs'

    def numbers(self, found: Selection, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        ``runs`` is student to one dict a seed, which holds (time, value) of
        each key; tau and KL are means over an epoch of the logged training
        batches.
        """
        runs = {}
        for run in found.students:
            runs.setdefault(run.label, []).append(_series(run, found.metric))
        if not any(seed[TAU] for seeds in runs.values() for seed in seeds):
            raise ValueError(
                f'none of the runs {", ".join(runs)} has logged {TAU}, which '
                'distillations do; give one that has a teacher'
            )
        keys = [found.metric] if found.metric else []
        by_epoch = unit(found.students, VALIDATION)
        return dict(
            keys=[*keys, TAU, KL],
            units=[by_epoch] * (len(keys) + 2),
            runs=runs,
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        keys = numbers['keys']
        return curves_figure(
            numbers['runs'],
            [Curve(title_of(key), (key,)) for key in keys],
            numbers['units'],
            len(keys),
            # Students look as they do in the figures that have a teacher.
            first=1,
        )


def _series(run: Run, metric: str | None) -> dict[str, list]:
    if not run.log:
        files = ', '.join(map(str, log_files(run.folder)))
        raise ValueError(
            f'the log of {run.title} holds nothing that can be read: '
            f'{files or run.folder}; leave this RUN out, or train it again'
        )
    found = {key: thinned(means_of(run.log, key)) for key in (TAU, KL)}
    if metric:
        found[metric] = scores(run.log, metric)
    return found
