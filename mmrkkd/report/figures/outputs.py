"""What teacher and students answer to single images."""

import argparse
import base64
import io
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmrkkd.evaluation.evenly import evenly
from mmrkkd.report.curves import COLOURS
from mmrkkd.report.gallery import opened
from mmrkkd.report.matched_logits import MatchedLogits

from .base import PaperFigure
from .drawing import decorate, legend_below, panels
from .options import whole_number

# Names of more classes than that cannot be read.
MOST_NAMES = 25
THUMBNAIL = 160
TITLE_LETTERS = 85
MARKERS = 'osD^vP*X'


class Outputs(PaperFigure):
    """A row for each image: the image, and every model's logits on it."""

    title = 'Outputs of teacher and students on single images'
    source = 'RKKD, figure 10'
    reading = (
        "Grey bars are the teacher's logits, minus their mean, marks those "
        'of the students: a student follows where its marks stand at the '
        "bars' ends, and keeps the order where they rise and fall with them."
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """See :meth:`PaperFigure.add_options`."""
        parser.add_argument(
            '--samples',
            type=whole_number,
            default=4,
            metavar='N',
            help='images, or boxes, that are drawn, evenly spaced over the '
            'scored ones (default: %(default)s)',
        )

    def numbers(self, found: MatchedLogits, args: argparse.Namespace) -> dict:
        """See :meth:`PaperFigure.numbers`.

        Each sample holds the logits of each model minus their mean, and
        what it is called; ``true`` is None where nothing is annotated.
        """
        places = evenly(len(found.teacher), args.samples)
        return dict(
            classes=found.names,
            models=list(found.models),
            samples=[_sample(found, row) for row in places],
        )

    def draw(self, numbers: dict) -> Figure:
        """See :meth:`PaperFigure.draw`."""
        samples = numbers['samples']
        figure, axes = panels(2 * len(samples), 2, (4.6, 2.5))
        grid = axes[0].get_gridspec()
        grid.set_width_ratios([1, 4])
        for index, sample in enumerate(samples):
            _picture(axes[2 * index], sample)
            _logits(axes[2 * index + 1], numbers, sample)
        legend_below(figure, axes[1::2])
        return figure


def _sample(found: MatchedLogits, row: int) -> dict:
    label = found.labels[row]
    return dict(
        name=found.samples[row],
        true=found.names[label] if label >= 0 else None,
        picture=_thumbnail(found, row),
        logits={
            name: (logits[row] - logits[row].mean()).tolist()
            for name, logits in found.models.items()
        },
        first={
            name: found.names[int(logits[row].argmax())]
            for name, logits in found.models.items()
        },
    )


def _thumbnail(found: MatchedLogits, row: int) -> str:
    """The image, or the box in it, as PNG in base64."""
    image = opened(found.pictures[found.samples[row]]).convert('RGB')
    if found.boxes is not None:
        left, top, right, bottom = found.boxes[row]
        image = image.crop(
            (int(left), int(top), int(right) + 1, int(bottom) + 1)
        )
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return base64.b64encode(buffer.getvalue()).decode()


def _picture(axis: Axes, sample: dict) -> None:
    data = io.BytesIO(base64.b64decode(sample['picture']))
    axis.imshow(Image.open(data))
    axis.set_axis_off()
    axis.set_title(sample['true'] or 'not annotated', fontsize=12)


def _answers(first: dict[str, str]) -> str:
    """Each class that some model puts first, and which do."""
    models = {}
    for label, name in first.items():
        models.setdefault(name, []).append(label)
    text = '; '.join(f'{name}: {", ".join(m)}' for name, m in models.items())
    return '\n'.join(wrap(text, TITLE_LETTERS))


def _logits(axis: Axes, numbers: dict, sample: dict) -> None:
    classes = numbers['classes']
    decorate(axis, '', '', 'logit minus the mean')
    axis.set_title(_answers(sample['first']), fontsize=10)
    places = np.arange(len(classes))
    teacher, *students = numbers['models']
    axis.bar(
        places, sample['logits'][teacher], color='#00000055', label=teacher
    )
    for number, label in enumerate(students, 1):
        axis.plot(
            places,
            sample['logits'][label],
            MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            markersize=5,
            label=label,
        )
    if len(classes) <= MOST_NAMES:
        axis.set_xticks(places, classes, rotation=30, ha='right')
        # Once below all.
        axis.tick_params(labelbottom=sample is numbers['samples'][-1])
