"""Detections of several models beside the ground truth, as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmcv.ops import nms
from mmdet.evaluation.functional import bbox_overlaps
from mmengine.visualization import Visualizer

# Colours that the common colour blindnesses keep apart (Okabe and Ito), and
# a line style each, so that no information is in the colour alone.
STYLES = dict(
    truth=('#ffffff', '-'),
    correct=('#56b4e9', '-'),
    wrong_class=('#f0e442', '--'),
    no_object=('#ff8c5a', ':'),
)
MEANINGS = dict(
    truth='ground truth',
    correct='right class, IoU at least 0.5',
    wrong_class='wrong class, IoU at least 0.5',
    no_object='no object there, or found already',
)

CELL_INCHES = 2.9
# The longer side of an image on which boxes and labels are drawn.
CELL_PIXELS = 480
LABEL_POINTS = 13


@dataclass
class Detections:
    """What one model, or the ground truth, says about one image.

    Args:
        boxes: (N, 4), left, top, right, bottom in pixels of the image.
        labels: (N, ), class indices.
        scores: (N, ) in [0, 1], or None for the ground truth.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

    def strongest(self, threshold: float, iou: float = 0.5) -> 'Detections':
        """The best at each place, the best first.

        A detector suppresses repetitions within a class only: where it
        wavers between classes it reports them all, one upon the other.

        Args:
            threshold: Lower scores are left out.
            iou: A detection that overlaps a better one by more is left out,
                whatever its class. Defaults to 0.5.
        """
        _, kept = nms(
            self.boxes.astype(np.float32).reshape(-1, 4),
            self.scores.astype(np.float32),
            iou,
            score_threshold=threshold,
        )
        return Detections(
            self.boxes[kept], self.labels[kept], self.scores[kept]
        )


def judge(found: Detections, truth: Detections, iou: float = 0.5) -> list[str]:
    """Says of each detection whether it is right.

    Each detection takes the free ground-truth box that it overlaps most,
    those with high scores first, as COCO's evaluation does; but over all
    classes, to tell a wrong class from a wrong place.

    Args:
        found: Detections, the best first.
        truth: The ground truth.
        iou: Intersection over union from which a box is met.
            Defaults to 0.5.

    Returns:
        For each detection 'correct', 'wrong_class' or 'no_object'.
    """
    verdicts, free = [], list(range(len(truth.boxes)))
    overlaps = bbox_overlaps(found.boxes, truth.boxes)
    for row, label in zip(overlaps, found.labels, strict=True):
        met = [index for index in free if row[index] >= iou]
        # Two ground-truth boxes may be met: the one of the right class wins.
        same = [index for index in met if truth.labels[index] == label]
        if not met:
            verdicts.append('no_object')
            continue
        free.remove(max(same or met, key=lambda index: row[index]))
        verdicts.append('correct' if same else 'wrong_class')
    return verdicts


def draw_detections(
    path: str | Path,
    images: Sequence[str | np.ndarray],
    truths: Sequence[Detections],
    columns: dict[str, Sequence[Detections]],
    classes: Sequence[str],
    threshold: float = 0.3,
) -> None:
    """Draws images as rows, the ground truth and each model as columns.

    Args:
        path: PNG file to write.
        images: N files, or uint8 arrays (H, W, 3), RGB.
        truths: The ground truth of each image.
        columns: Title to the detections of each image.
        classes: Class names.
        threshold: Lower scores are not drawn. Defaults to 0.3.
    """
    rows, width = len(images), len(columns) + 1
    height = rows * (CELL_INCHES + 0.08) + 1.16
    figure = Figure((width * (CELL_INCHES + 0.08), height), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, width, squeeze=False)
    for row, (image, truth) in enumerate(zip(images, truths, strict=True)):
        image = mmcv.imread(image, channel_order='rgb')
        cells = [truth, *(found[row] for found in columns.values())]
        for axis, cell in zip(axes[row], cells, strict=True):
            axis.imshow(_drawn(image, cell, truth, classes, threshold))
            axis.set_axis_off()
    for axis, title in zip(axes[0], ['Ground truth', *columns], strict=True):
        axis.set_title(title, fontsize=13, pad=7)
    _draw_legend(figure, threshold)
    figure.subplots_adjust(
        left=0.005,
        right=0.995,
        top=1 - 0.38 / height,
        bottom=0.78 / height,
        wspace=0.02,
        hspace=0.02,
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
            edgecolor=colour,
            linestyle=style,
        )
        for name, (colour, style) in STYLES.items()
    ]
    # Dark like the pictures: the ground truth's frame is white.
    figure.legend(
        handles=handles,
        loc='lower center',
        ncols=4,
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


def _drawn(
    image: np.ndarray,
    cell: Detections,
    truth: Detections,
    classes: Sequence[str],
    threshold: float,
) -> np.ndarray:
    """The image with boxes and labels, enlarged so that they can be read."""
    if cell.scores is None:
        verdicts = ['truth'] * len(cell.boxes)
    else:
        cell = cell.strongest(threshold)
        verdicts = judge(cell, truth)
    scale = CELL_PIXELS / max(image.shape[:2])
    visualizer = Visualizer(
        image=mmcv.imrescale(image, scale, interpolation='nearest')
    )
    if verdicts:
        height, width = image.shape[:2]
        # What reaches beyond the image would shrink it in the picture.
        boxes = cell.boxes.clip(0, [width, height] * 2) * scale
        colours, styles = zip(*(STYLES[v] for v in verdicts), strict=True)
        visualizer.draw_bboxes(
            boxes,
            edge_colors=list(colours),
            line_styles=list(styles),
            line_widths=4,
        )
        texts = [classes[label].replace(' ', '\n', 1) for label in cell.labels]
        if cell.scores is not None:
            texts = [
                f'{text} {score:.2f}'
                for text, score in zip(texts, cell.scores, strict=True)
            ]
        _draw_labels(visualizer, boxes, texts, list(colours))
    return visualizer.get_image()


def _draw_labels(
    visualizer: Visualizer,
    boxes: np.ndarray,
    texts: list[str],
    colours: list[str],
) -> None:
    """Writes each label into the corner of its box, within the picture."""
    # Monospaced, a character has 0.6 of its height; half a pixel a point.
    wide = np.array([max(map(len, text.split('\n'))) for text in texts])
    left = np.minimum(
        boxes[:, 0] + 5, visualizer.width - 0.62 * LABEL_POINTS * wide
    )
    visualizer.draw_texts(
        texts,
        np.stack([left.clip(3), boxes[:, 1] + 5], 1),
        font_sizes=LABEL_POINTS,
        colors=colours,
        font_families='monospace',
        bboxes=dict(facecolor='black', alpha=0.8, pad=0.7, edgecolor='none'),
    )
