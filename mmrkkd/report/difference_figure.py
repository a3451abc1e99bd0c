"""A picture of differences to a baseline, with what chance does to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmrkkd.evaluation.metric_units import scale_of, unit_of

from .figures.drawing import decorate, legend_below, panels

SHOWN, OPEN = '#0072b2', '#888888'
# Of two or three seeds Student's interval is many times their range: what it
# adds to the picture is cut at so much of the range on either side.
MARGIN = 0.25


@dataclass
class Compared:
    """One panel: the methods of one experiment.

    Args:
        title: Above the panel.
        rows: Of :func:`mmrkkd.evaluation.summary.summarize`; those without
            a difference are left out.
        baseline: Label of the baseline.
        metric: Log key.
    """

    title: str
    rows: Sequence[dict]
    baseline: str
    metric: str

    def __post_init__(self) -> None:
        self.rows = [row for row in self.rows if row['difference']]


def differences_figure(experiments: Sequence[Compared]) -> Figure:
    """Draws a line a method: each seed, the mean, and its intervals.

    A method is coloured where each interval that is known leaves out 0.

    Args:
        experiments: One panel each, side by side.

    Raises:
        ValueError: nothing in an experiment is compared.
    """
    for each in experiments:
        if not each.rows:
            raise ValueError(
                f'"{each.title}" has no method with a seed in common with '
                f'{each.baseline}, so there is no difference to draw'
            )
    count = len(experiments)
    height = 1.1 + 0.55 * max(len(each.rows) for each in experiments)
    # One by itself leaves the legend room for a line.
    width = 5.4 if count > 1 else 8.0
    figure, axes = panels(count, count, (width, height))
    for axis, each in zip(axes, experiments, strict=True):
        _decorate(axis, each)
        scale = scale_of(each.metric)
        for place, row in enumerate(each.rows):
            _draw(axis, place, row, scale)
    low, high = _range(experiments)
    for axis in axes:
        axis.set_xlim(low, high)
    legend_below(figure, axes)
    return figure


def _decorate(axis: Axes, compared: Compared) -> None:
    rows, scale = compared.rows, scale_of(compared.metric)
    unit = unit_of(compared.metric)
    decorate(axis, compared.title, f'{unit} minus {compared.baseline}', '')
    axis.grid(visible=False, axis='y')
    axis.axvline(0, color='#000000', linewidth=1)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    means = [scale * row['difference']['mean'] for row in rows]
    axis.set_yticks(
        range(len(rows)),
        [
            f'{row["label"]}  {mean:+.2f}'
            for row, mean in zip(rows, means, strict=True)
        ],
    )
    axis.tick_params(axis='y', length=0)


def _draw(axis: Axes, place: int, row: dict, scale: float) -> None:
    seeds, of_seeds, of_images = _spreads(row, scale)
    mean = scale * row['difference']['mean']
    if of_images:
        axis.plot(
            of_images,
            [place, place],
            color='#56b4e9',
            alpha=0.55,
            linewidth=9,
            solid_capstyle='butt',
            label='95 % over images',
        )
    if of_seeds:
        axis.plot(
            of_seeds,
            [place, place],
            color='#333333',
            linewidth=1.2,
            label='95 % over seeds',
        )
    known = [each for each in (of_seeds, of_images) if each]
    shown = known and all(low > 0 or high < 0 for low, high in known)
    axis.plot(
        mean,
        place,
        'D',
        color=SHOWN if shown else OPEN,
        markersize=9,
        label=f'mean, {"0 is outside" if shown else "an interval holds 0"}'
        if known
        else 'the one seed',
    )
    axis.plot(
        seeds,
        [place] * len(seeds),
        'o',
        markerfacecolor='white',
        markeredgecolor='#333333',
        markersize=4.5,
        label='each seed',
    )


def _spreads(row: dict, scale: float) -> tuple[list, tuple, tuple]:
    """Differences of the seeds, and the intervals; () where unknown."""
    found, images = row['difference'], row['over_images']
    seeds = [scale * value for value in found['by_seed'].values()]
    of_seeds = of_images = ()
    if found['half_width'] is not None:
        mean, half = scale * found['mean'], scale * found['half_width']
        of_seeds = mean - half, mean + half
    if images:
        of_images = images['low'][0], images['high'][0]
    return seeds, of_seeds, of_images


def _range(experiments: Sequence[Compared]) -> tuple[float, float]:
    """The same for all panels, so that their lengths can be compared."""
    seen, wide = [0.0], []
    for each in experiments:
        for row in each.rows:
            seeds, of_seeds, of_images = _spreads(row, scale_of(each.metric))
            seen += [*seeds, *of_images]
            wide += of_seeds
    space = MARGIN * (max(seen) - min(seen) or 1)
    low, high = min(seen) - space, max(seen) + space
    return (
        min(max(low, min(wide, default=low)), min(seen) - space / 4),
        max(min(high, max(wide, default=high)), max(seen) + space / 4),
    )
