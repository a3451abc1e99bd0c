"""One bar for all cells of an experiment."""

import sys
import time
from collections.abc import Iterable

from tqdm import tqdm

from .cells import Cell

# Where the output is no terminal, a line now and then instead of a bar.
SECONDS_BETWEEN_LINES = 20


class Progress:
    """Cells and epochs done of all, elapsed and remaining time.

    The remaining time follows from the seconds that an epoch of each method
    took; one not yet seen is expected to take what the others did, by the
    methods' ``cost``.

    Args:
        cells: All cells.
        jobs: How many run side by side. Defaults to 1.
        stream: Where to write. Defaults to standard error.
    """

    def __init__(self, cells: list[Cell], jobs: int = 1, stream=None) -> None:
        self.cells, self.jobs = cells, jobs
        by_epoch = all(c.config.train_cfg.get('max_epochs') for c in cells)
        self.unit = 'epochs' if by_epoch else 'iterations'
        self.stream = stream or sys.stderr
        self.done = {id(cell): 0.0 for cell in cells}
        self.closed = set()
        # Label to seconds an epoch.
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
        # Its start is in the first ones, which say little of all others.
        if pace and (not self.pace or epochs >= cell.epochs / 10):
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
        costs = {c.method.label: c.method.cost for c in self.cells}
        mean = sum(p / costs[n] for n, p in self.pace.items())
        mean /= len(self.pace)
        left = [
            (cell.epochs - self.done[id(cell)])
            * self.pace.get(cell.method.label, mean * cell.method.cost)
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
