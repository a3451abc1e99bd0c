"""What the numbers of a metric count, and which of them decides."""

from collections.abc import Collection, Mapping

# MMPretrain's give percent, all but those of regression; average precisions
# of boxes are in [0, 1]. A task of several stands before the prefix.
PERCENT = ('accuracy', 'single-label', 'multi-label', 'retrieval')
# Top-1 accuracy, or the AP of boxes: the surest ending first.
DECIDING = ('/top1', 'bbox_mAP', 'bbox_AP', '/mAP', '/AP')


def deciding(metrics: Collection[str]) -> str | None:
    """The metric that a model is judged by; None if none of them tells.

    Args:
        metrics: Log keys; of several with one ending the first is taken.
    """
    for end in DECIDING:
        for metric in metrics:
            if metric.endswith(end):
                return metric
    return None


def scale_of(metric: str) -> float:
    """What makes percent of a metric's value: 1 or 100.

    Args:
        metric: Log key.
    """
    prefix, _, name = metric.rpartition('/')
    return 1 if prefix.endswith(PERCENT) or name.startswith('top') else 100


def unit_of(metric: str) -> str:
    """What is counted: 'AP', '% accuracy', or '%' and the metric's name.

    Args:
        metric: Log key.
    """
    name = metric.rpartition('/')[2]
    if name.startswith('top'):
        return '% accuracy'
    return f'% {name}' if scale_of(metric) == 1 else 'AP'


def in_a_line(metrics: Mapping[str, float]) -> str:
    """Names and values, without COCO's -1 of a size that no object has.

    Args:
        metrics: Log key to score.
    """
    return ', '.join(f'{k} {v:.4g}' for k, v in metrics.items() if v != -1)
