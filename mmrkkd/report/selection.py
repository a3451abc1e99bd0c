"""Who is compared with whom, and by how much they differ."""

from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from mmrkkd.evaluation.kept_predictions import (
    bootstrap,
    copies_of_images,
    ground_truth,
    kept_bootstrap,
    matched,
)
from mmrkkd.evaluation.summary import Bootstrap, summarize

from .runs import teacher_label
from .training_run import Run

# What samples of the images are scored by; an interval of another metric
# would be that of another number.
RESAMPLED_METRIC, ANSWERED_METRIC = 'bbox_mAP', '/top1'


class Selection:
    """The runs of a report: the teacher's first, then the baseline's.

    Args:
        runs: All of them.
        baseline: Label that the others are compared with. Defaults to the
            students that were trained alone, or else 'kd', or else the
            first.

    Raises:
        ValueError: there is no such baseline.
    """

    def __init__(self, runs: Sequence[Run], baseline: str | None = None):
        self.teacher = teacher_label(runs)
        labels = list(dict.fromkeys(run.label for run in runs))
        students = [label for label in labels if label != self.teacher]
        alone = [run.label for run in runs if not run.distils]
        alone = [label for label in alone if label in students]
        if baseline is not None and baseline not in students:
            raise ValueError(
                f'--baseline must be one of {", ".join(students or labels)}, '
                f'got {baseline!r}'
            )
        preferred = [*alone, *(label for label in students if label == 'kd')]
        self.baseline = baseline or (preferred or students or labels)[0]
        first = [self.teacher, self.baseline]
        self.labels = sorted(
            labels,
            key=lambda label: first.index(label) if label in first else 2,
        )
        self.runs = sorted(runs, key=lambda run: self.labels.index(run.label))
        self.metric = next(
            (run.metric for run in self.runs if run.metric), None
        )

    @property
    def students(self) -> list[Run]:
        """All runs but the teacher's."""
        return [run for run in self.runs if run.label != self.teacher]

    @property
    def teacher_run(self) -> Run | None:
        """The teacher's first."""
        return next(iter(self.of(self.teacher)), None)

    def of(self, label: str | None) -> list[Run]:
        """The runs of a label."""
        return [run for run in self.runs if run.label == label]


def class_scores_and_rows(
    selection: Selection,
    samples: int,
    answers: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, dict[str, float]], list[dict]]:
    """AP class by class, and a row a label with paired differences.

    Args:
        selection: The runs.
        samples: Bootstrap samples of the validation images; 0 for none.
        answers: Label to (I, ) bool, whether a classifier of one seed is
            right on each validation image. Defaults to none.

    Returns:
        Label to class to AP in percent, the mean over the seeds, of runs
        that keep their predictions; and the rows of
        :func:`mmrkkd.evaluation.summary.summarize` with ``compared``:
        whether it is a student other than the baseline.
    """
    classes, bootstraps = {}, {}
    for run in tqdm(selection.runs, 'runs'):
        known = run.metric and run.predictions and ground_truth(run.config)
        if not known:
            continue
        matches = matched(run.config, run.folder)
        by_class = matches.average_precision()
        classes.setdefault(run.label, []).append(by_class)
        resampled = samples and run.metric.endswith(RESAMPLED_METRIC)
        if resampled and run.label != selection.teacher:
            kept = kept_bootstrap(run.folder, samples)
            made = kept or bootstrap(matches, samples)
            bootstraps[run.label, run.seed] = made
    if samples:
        for label, right in (answers or {}).items():
            (run,) = selection.of(label)
            if (run.metric or '').endswith(ANSWERED_METRIC):
                bootstraps[label, run.seed] = _of_answers(right, samples)
    records = [run.record for run in selection.runs if run.metric]
    labels = [
        label
        for label in selection.labels
        if any(run.metric for run in selection.of(label))
    ]
    rows = []
    if selection.baseline in labels:
        rows = summarize(labels, records, selection.baseline, bootstraps)
    for row in rows:
        row['compared'] = row['label'] not in (
            selection.teacher,
            selection.baseline,
        )
        if not row['compared']:
            row.update(difference=None, over_images=None)
    return {label: _means(each) for label, each in classes.items()}, rows


def _of_answers(right: np.ndarray, samples: int) -> Bootstrap:
    """The accuracy in percent on samples of the images."""
    copies = copies_of_images(len(right), samples)
    return Bootstrap(
        np.array([100 * right.mean()]),
        100 * copies @ right[:, None] / len(right),
        len(right),
    )


def _means(seeds: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    return {
        name: float(np.mean([100 * seed[name] for seed in seeds]))
        for name in seeds[0]
    }
