"""What the figures of a sweep ask of its runs."""

from collections.abc import Iterator

import numpy as np
from mmengine.config import Config, ConfigDict

from mmrkkd.evaluation.metric_units import scale_of
from mmrkkd.report.selection import Selection
from mmrkkd.report.training_run import Run


def setting(config: Config, key: str) -> object:
    """A setting of a config, None where it is not stated.

    Args:
        config: The config.
        key: Dotted, with indices of lists, as in ``--cfg-options``.
    """
    value = config
    for part in key.split('.'):
        if isinstance(value, (list, tuple)) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, (dict, Config)):
            value = value.get(part)
        else:
            return None
    return value


def losses_of(run: Run) -> Iterator[ConfigDict]:
    """Every dict below ``model.losses`` of a distillation's config.

    Args:
        run: A run.
    """
    pending = [run.config.model.get('losses')]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending += value.values()
        elif isinstance(value, (list, tuple)):
            pending += value


class SweepPoint:
    """The runs, one a seed, at one place of a sweep."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.label = None
        self.scores = {}

    def add(self, run: Run) -> None:
        """Takes a run's score after its last epoch.

        Raises:
            ValueError: a run of another method is there already, or it was
                never validated.
        """
        if self.label not in (None, run.label):
            raise ValueError(
                f'{self.label} and {run.label} both stand at {self.place}: '
                'the figure shows a sweep in which nothing else changes; '
                'give the folder of one'
            )
        if run.metric is None:
            raise ValueError(
                f'{run.title} was never validated: no metric in the log of '
                f'{run.folder}'
            )
        self.label = run.label
        self.scores[str(run.seed)] = scale_of(run.metric) * run.record['last']

    def numbers(self) -> dict:
        """Mean, sample deviation (None of one seed) and each seed's score."""
        values = list(self.scores.values())
        several = len(values) > 1
        return dict(
            label=self.label,
            mean=float(np.mean(values)),
            deviation=float(np.std(values, ddof=1)) if several else None,
            by_seed=self.scores,
        )


def students_of(selection: Selection) -> list[Run]:
    """The runs that have a teacher.

    Raises:
        ValueError: there is none.
    """
    taught = [run for run in selection.runs if run.distils]
    if not taught:
        raise ValueError(
            f'none of the runs {", ".join(selection.labels)} has a teacher; '
            'give the folder of an ablation of distillations'
        )
    return taught
