"""Detections of several models beside the ground truth, as one picture."""

import io
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .box_styles import MEANINGS, STYLES
from .verdicts import Detections, verdicts_and_missed

CELL_INCHES = 2.9
# Below an image, for how much of it is right.
GAP_INCHES = 0.3
LABEL_POINTS = 7.5


def draw_detections(
    path: str | Path | io.BytesIO,
    images: Sequence[str | np.ndarray],
    truths: Sequence[Detections],
    columns: dict[str, Sequence[Detections]],
    classes: Sequence[str],
    threshold: float = 0.3,
) -> None:
    """Draws images as rows, the ground truth and each model as columns.

    Args:
        path: PNG file to write, or an open one.
        images: N files, or uint8 arrays (H, W, 3), RGB.
        truths: The ground truth of each image.
        columns: Title to the detections of each image.
        classes: Class names.
        threshold: Lower scores are not drawn. Defaults to 0.3.
    """
    rows, width = len(images), len(columns) + 1
    height = rows * (CELL_INCHES + GAP_INCHES) + 1.2
    figure = Figure((width * (CELL_INCHES + 0.08), height), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, width, squeeze=False)
    for row, (image, truth) in enumerate(zip(images, truths, strict=True)):
        image = mmcv.imread(image, channel_order='rgb')
        cells = [truth, *(found[row] for found in columns.values())]
        for axis, cell in zip(axes[row], cells, strict=True):
            axis.imshow(image, interpolation='nearest')
            axis.set_axis_off()
            _draw_boxes(axis, image.shape, cell, truth, classes, threshold)
    for axis, title in zip(axes[0], ['Ground truth', *columns], strict=True):
        axis.set_title(title, fontsize=13, pad=7)
    _draw_legend(figure, threshold)
    figure.subplots_adjust(
        left=0.005,
        right=0.995,
        top=1 - 0.38 / height,
        bottom=(0.78 + GAP_INCHES) / height,
        wspace=0.02,
        hspace=GAP_INCHES / CELL_INCHES,
    )
    figure.savefig(path)


def _draw_legend(figure: Figure, threshold: float) -> None:
    handles = [
        Rectangle(
            (0, 0),
            1,
            1,
            fill=False,
            linewidth=2,
            label=MEANINGS[name],
            **style,
        )
        for name, style in STYLES.items()
    ]
    # Dark like the pictures: the ground truth's frame is white.
    figure.legend(
        handles=handles,
        loc='lower center',
        ncols=len(handles),
        fontsize=12,
        facecolor='#404040',
        edgecolor='none',
        framealpha=1,
        labelcolor='white',
        handlelength=2.6,
        handleheight=1.4,
        borderpad=0.6,
        title='The strongest detection at each place, score above '
        f'{threshold:g}',
    ).get_title().set(color='white', fontsize=12)


def _draw_boxes(
    axis: Axes,
    shape: tuple[int, ...],
    cell: Detections,
    truth: Detections,
    classes: Sequence[str],
    threshold: float,
) -> None:
    verdicts = ['truth'] * len(cell.boxes)
    if cell.scores is not None:
        cell = cell.strongest(threshold)
        verdicts, missed = verdicts_and_missed(cell, truth)
        for box in truth.boxes[missed]:
            axis.add_patch(_frame(box, 'missed'))
        axis.text(
            0.5,
            -0.02,
            f'{verdicts.count("correct")} of {len(truth.boxes)} right',
            transform=axis.transAxes,
            ha='center',
            va='top',
            fontsize=11,
        )
    labels = []
    for number, (box, verdict) in enumerate(
        zip(cell.boxes, verdicts, strict=True)
    ):
        axis.add_patch(_frame(box, verdict))
        text = classes[cell.labels[number]].replace(' ', '\n', 1)
        if cell.scores is not None:
            text += f' {cell.scores[number]:.2f}'
        labels.append((box, text, STYLES[verdict]['edgecolor']))
    _draw_labels(axis, shape, labels)


def _frame(box: Sequence[float], verdict: str) -> Rectangle:
    left, top, right, bottom = box
    return Rectangle(
        (left - 0.5, top - 0.5),
        right - left,
        bottom - top,
        fill=False,
        linewidth=1.8,
        **STYLES[verdict],
    )


def _draw_labels(
    axis: Axes, shape: tuple[int, ...], labels: list[tuple]
) -> None:
    """Writes each label beside its box, inside the picture, none on another.

    The boxes of text are measured in points: a monospaced character has 0.6
    of the font's size, a line 1.4. MMDetection's visualizer puts them into the
    corners of the boxes, where they hide small objects and each other.
    """
    height, width = shape[:2]
    pixel = max(height, width) / (CELL_INCHES * 72)
    taken = []
    for (left, top, right, bottom), text, colour in labels:
        lines = text.split('\n')
        wide = (0.62 * LABEL_POINTS * max(map(len, lines)) + 3) * pixel
        tall = (1.4 * LABEL_POINTS * len(lines) + 3) * pixel
        places = [
            (left, top - tall),
            (left, bottom),
            (right - wide, bottom),
            (right, top),
            (left - wide, top),
            (right, bottom - tall),
            (left - wide, bottom - tall),
            (left, top),
        ]
        places = [
            (min(max(x, 0), width - wide), min(max(y, 0), height - tall))
            for x, y in places
        ]
        spots = [(x, y, x + wide, y + tall) for x, y in places]
        spot = min(spots, key=lambda s: sum(_shared(s, t) for t in taken))
        taken.append(spot)
        axis.add_patch(
            Rectangle(
                (spot[0] - 0.5, spot[1] - 0.5),
                wide,
                tall,
                facecolor='#000000',
                alpha=0.85,
                linewidth=0,
            )
        )
        axis.text(
            spot[0] - 0.5 + wide / 2,
            spot[1] - 0.5 + tall / 2,
            text,
            color=colour,
            fontsize=LABEL_POINTS,
            family='monospace',
            ha='center',
            va='center',
            linespacing=1.05,
        )


def _shared(box: Sequence[float], other: Sequence[float]) -> float:
    wide = min(box[2], other[2]) - max(box[0], other[0])
    tall = min(box[3], other[3]) - max(box[1], other[1])
    return max(wide, 0) * max(tall, 0)
