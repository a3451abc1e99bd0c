"""From results of single runs to rows of a table."""

from mmrkkd.evaluation.summary import (
    Bootstrap,
    over_images,
    paired,
    quantile,
    spread,
    summarize,
)

__all__ = [
    'Bootstrap',
    'over_images',
    'paired',
    'quantile',
    'spread',
    'summarize',
]
