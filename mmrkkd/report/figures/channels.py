"""How many of the classes must be ranked, and which."""

import argparse

from matplotlib.figure import Figure

from mmrkkd.evaluation.metric_units import unit_of
from mmrkkd.report.selection import Selection
from mmrkkd.report.training_run import Run

from .base import PaperFigure
from .drawing import decorate, legend_below, look, or_gaps, panels
from .sweeps import SweepPoint, losses_of, students_of

RANKING = ('RankKDLoss', 'KendallLoss')
ORDERS = dict(
    top="the teacher's greatest logits", min="the teacher's smallest logits"
)
NONE, ALL = 0.0, 1.0


class Channels(PaperFigure):
    """The score over the share of ranked classes, greatest or smallest."""

    title = 'Ranking a share of the classes'
    source = 'RKKD, figure 5'
    reading = (
        'From no ranked class (left, KL alone) to all (right): where the '
        'line of the smallest logits rises, their order holds knowledge; '
        'bars are the deviation of the seeds.'
    )
    needs = 'runs'

    def numbers(self, found: Selection, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        ``lines`` is 'top' and 'min' to points with the share in percent;
        the ends, 0 and 100, belong to both.
        """
        points = {}
        for run in students_of(found):
            place = _place(run)
            order, share = place
            named = f'{order} {share:.0%}' if order else f'{share:.0%}'
            points.setdefault(place, SweepPoint(named)).add(run)
        lines = {}
        for order in ORDERS:
            shares = sorted(s for o, s in points if o in (order, None))
            if any((order, share) in points for share in shares):
                lines[order] = [
                    dict(
                        points.get(
                            (order, share), points.get((None, share))
                        ).numbers(),
                        share=100 * share,
                    )
                    for share in shares
                ]
        if not lines:
            names = ', '.join(found.labels)
            raise ValueError(
                'the figure channels shows a sweep over channel_share, and '
                f'none of the runs {names} ranks a share of the classes; '
                'train one with mmrkkd ablate '
                'configs/classification/image_folder/channels.yml'
            )
        return dict(metric=found.metric, lines=lines)

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        figure, (axis,) = panels(1, size=(6.4, 4.2))
        decorate(
            axis, self.title, 'ranked classes, %', unit_of(numbers['metric'])
        )
        for number, (order, points) in enumerate(numbers['lines'].items(), 2):
            axis.errorbar(
                [point['share'] for point in points],
                [point['mean'] for point in points],
                or_gaps(point['deviation'] for point in points),
                label=ORDERS[order],
                marker='o',
                capsize=3,
                **look(number),
            )
        legend_below(figure, [axis])
        return figure


def _place(run: Run) -> tuple[str | None, float]:
    """Which classes a run ranks: 'top' or 'min', and their share."""
    for loss in losses_of(run):
        kind = str(loss.get('type')).rpartition('.')[2]
        if kind in RANKING and loss.get('rank_weight') != 0:
            share = float(loss.get('channel_share', ALL))
            if share == ALL:
                return None, ALL
            return loss.get('channel_order', 'top'), share
    return None, NONE
