"""The papers' figures, from the runs of whoever calls.

A figure is a file: every :class:`PaperFigure` that a module of this package
defines is found by itself and named after its file.
"""

import importlib
import inspect
import pkgutil

from .base import PaperFigure


def _find_figures() -> dict[str, PaperFigure]:
    found = []
    for info in pkgutil.iter_modules(__path__, f'{__name__}.'):
        module = importlib.import_module(info.name)
        found += [
            kind()
            for kind in vars(module).values()
            if inspect.isclass(kind)
            and issubclass(kind, PaperFigure)
            and kind.__module__ == info.name
            and not inspect.isabstract(kind)
        ]
    found.sort(key=_place)
    return {figure.name: figure for figure in found}


def _place(figure: PaperFigure) -> tuple[bool, str, int]:
    """RKKD's first, by their numbers: 'RKKD, figure 10'."""
    paper, number = figure.source.split(', figure ')
    return paper != 'RKKD', paper, int(number)


FIGURES = _find_figures()

__all__ = ['FIGURES', 'PaperFigure']
