"""What a figure of a paper is."""

import argparse
from abc import ABC, abstractmethod

from matplotlib.figure import Figure

from mmrkkd.report.selection import Selection


class PaperFigure(ABC):
    """One figure; its name is that of its file, with hyphens.

    ``title`` stands above it, ``source`` says which paper's figure it
    follows, ``reading`` how to read it, in one sentence. ``needs`` is what
    :meth:`numbers` gets, gathered by :mod:`mmrkkd.commands.figure`:

    - 'logits': a :class:`mmrkkd.report.matched_logits.MatchedLogits`;
    - 'runs': the :class:`mmrkkd.report.selection.Selection` of the runs;
    - 'losses': a :class:`mmrkkd.report.figures.landscape.LossGrids`.

    Another need is an entry in ``INPUTS`` there.
    """

    name = ''
    title = ''
    source = ''
    reading = ''
    needs = 'logits'

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.name = cls.__module__.rpartition('.')[2].replace('_', '-')

    # Most have none.
    def add_options(  # noqa: B027
        self, parser: argparse.ArgumentParser
    ) -> None:
        """Adds the figure's own arguments.

        Args:
            parser: Has those that all figures share. An option's ``type``
                checks its value, so that a wrong one is told at once.
        """

    def check(  # noqa: B027
        self, selection: Selection, args: argparse.Namespace
    ) -> None:
        """Refuses runs before minutes are spent on them.

        Args:
            selection: The runs.
            args: See :meth:`numbers`.

        Raises:
            ValueError: the figure cannot be drawn from these runs.
        """

    @abstractmethod
    def numbers(self, found: object, args: argparse.Namespace) -> dict:
        """What the figure shows, as numbers.

        Args:
            found: See ``needs``.
            args: The command line; ``args.out`` is the folder of the
                figure, a Path, where unfinished work may be kept.

        Returns:
            What :mod:`json` can hold; a number that is not finite is
            written as None. A sentence under ``note`` is printed too.

        Raises:
            ValueError: the runs do not hold what the figure shows.
        """

    @abstractmethod
    def draw(self, numbers: dict) -> Figure:
        """Draws the figure from its numbers alone.

        Args:
            numbers: See :meth:`numbers`, after a trip through JSON.
        """
