"""One bar for the whole demo."""

import sys
import time

from tqdm import tqdm

# Where the output is no terminal, a line now and then instead of a bar.
SECONDS_BETWEEN_LINES = 20


class Progress:
    """Stage i of n, elapsed and remaining time, the current values.

    The remaining time follows from the expected seconds of the stages and
    the pace so far, so it also holds on a faster or slower machine.

    Args:
        costs: Expected seconds of each stage, in their order.
        stream: Where to write. Defaults to standard error.
    """

    def __init__(self, costs, stream=None):
        self.costs, self.stream = list(costs), stream or sys.stderr
        self.stage, self.title, self.skipped = -1, '', 0.0
        self.start = self.last_line = time.time()
        self.is_terminal = self.stream.isatty()
        self.bar = tqdm(
            total=sum(self.costs),
            file=self.stream,
            dynamic_ncols=True,
            disable=not self.is_terminal,
            bar_format='{desc} |{bar}| {percentage:3.0f}%{postfix}',
        )

    def begin(self, title):
        """The next stage starts."""
        self.stage += 1
        self.title = title
        self.write(f'\n[{self.stage + 1}/{len(self.costs)}] {title}')
        self.update(0)

    def skip(self, title, reason):
        """The next stage need not run."""
        self.begin(f'{title}: {reason}')
        self.skipped += self.costs[self.stage]
        self.update(1)

    def update(self, share, text=''):
        """The current stage is this far, in [0, 1]."""
        done = sum(self.costs[: self.stage]) + share * self.costs[self.stage]
        elapsed = time.time() - self.start
        worked, left = done - self.skipped, sum(self.costs) - done
        pace = elapsed / worked if worked > 0.02 * sum(self.costs) else 1
        times = f'{_clock(elapsed)} gone, about {_clock(left * pace)} left'
        if self.is_terminal:
            self.bar.n = done
            self.bar.set_description_str(
                f'{self.stage + 1}/{len(self.costs)}', refresh=False
            )
            self.bar.set_postfix_str(f'{times}  {text}')
        elif text and time.time() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.time()
            self.write(f'  {share:4.0%} of this stage, {times}  {text}')

    def write(self, text):
        """A line above the bar."""
        if self.is_terminal:
            self.bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def close(self):
        self.bar.close()


def _clock(seconds):
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'
