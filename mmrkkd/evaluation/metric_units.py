"""What the numbers of a metric count."""

# MMPretrain's give percent, all but those of regression; average precisions
# of boxes are in [0, 1]. A task of several stands before the prefix.
PERCENT = ('accuracy', 'single-label', 'multi-label', 'retrieval')


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
