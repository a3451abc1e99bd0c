"""One bar for all cells of an ablation."""

import sys
import time
from collections.abc import Iterable

from tqdm import tqdm

from .cells import Cell

# Where the output is no terminal, a line now and then instead of a bar.
SECONDS_BETWEEN_LINES = 20


class Overall:
    """Cells and epochs done of all, elapsed and remaining time.

    The remaining time follows from the seconds that an epoch of each method
    took; a method not yet seen is expected to take the others' mean.

    Args:
        cells: All cells.
        jobs: How many run side by side.
        unit: What ``Cell.epochs`` counts. Defaults to 'epochs'.
        stream: Where to write. Defaults to standard error.
    """

    def __init__(
        self, cells: list[Cell], jobs: int, unit: str = 'epochs', stream=None
    ) -> None:
        self.cells, self.jobs, self.unit = cells, jobs, unit
        self.stream = stream or sys.stderr
        self.done = {id(cell): 0.0 for cell in cells}
        self.closed = set()
        self.pace: dict[str, float] = {}
        self.start = self.last_line = time.time()
        self.is_terminal = self.stream.isatty()
        self.total = sum(cell.epochs for cell in cells)
        self.bar = tqdm(
            total=self.total,
            file=self.stream,
            dynamic_ncols=True,
            disable=not self.is_terminal,
            bar_format='|{bar:20}| {percentage:3.0f}%{postfix}',
        )

    def advance(self, cell: Cell, epochs: float, pace: float | None) -> None:
        """A cell is this far; an epoch of this attempt took ``pace`` s."""
        self.done[id(cell)] = epochs
        if pace:
            self.pace[cell.method.label] = pace

    def close_cell(self, cell: Cell, text: str) -> None:
        """A cell has come to its end, good or bad."""
        self.closed.add(id(cell))
        self.done[id(cell)] = float(cell.epochs)
        self.write(f'[{len(self.closed)}/{len(self.cells)}] {text}')

    def seconds_left(self) -> float | None:
        """Expected seconds until the last cell ends; None if unknown."""
        if not self.pace:
            return 0.0 if len(self.closed) == len(self.cells) else None
        mean = sum(self.pace.values()) / len(self.pace)
        left = [
            (cell.epochs - self.done[id(cell)])
            * self.pace.get(cell.method.label, mean)
            for cell in self.cells
            if id(cell) not in self.closed
        ]
        if not left:
            return 0.0
        # Not less than the slowest, however many run side by side.
        return max(sum(left) / self.jobs, *left)

    def show(self, now: Iterable[str] = ()) -> None:
        """Shows the state; ``now`` are texts of the running cells."""
        done = sum(self.done.values())
        left = self.seconds_left()
        text = (
            f'{len(self.closed)}/{len(self.cells)} cells, '
            f'{done:.1f}/{self.total} {self.unit}, '
            f'{clock(time.time() - self.start)} gone, '
            f'{"?" if left is None else "about " + clock(left)} left  '
            + '; '.join(now)
        )
        if self.is_terminal:
            self.bar.n = done
            self.bar.set_postfix_str(text)
        elif time.time() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.time()
            self.write('  ' + text)

    def write(self, text: str) -> None:
        """A line above the bar."""
        if self.is_terminal:
            self.bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Leaves the terminal to others."""
        self.bar.close()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours}:{minutes:02d}:{seconds:02d}'
    return f'{minutes}:{seconds:02d}'
