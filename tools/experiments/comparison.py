"""Which teacher a student is compared with, and by which config."""

from collections.abc import Sequence

from mmengine.config import ConfigDict

from mmrkkd.evaluation.comparison import comparison_config

from .cells import Cell

__all__ = ['comparison_config', 'reference']


def reference(cells: Sequence[Cell], baseline: str) -> ConfigDict | None:
    """The model that says which teacher a student alone is compared with.

    The baseline's, or the first distillation's; None if nothing distils.
    """
    ordered = sorted(cells, key=lambda cell: cell.method.label != baseline)
    for cell in ordered:
        if 'teacher' in cell.config.model:
            return cell.config.model
    return None
