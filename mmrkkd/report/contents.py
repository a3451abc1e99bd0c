"""What the page says of classes and images, from runs or their scores."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmrkkd.datasets import inner_datasets
from mmrkkd.evaluation.image_scores import BACKGROUND, ImageScores, Scored
from mmrkkd.evaluation.kept_predictions import (
    ground_truth,
    kept_detections,
    validated_classes,
)

from .confusions import confused_objects
from .gallery import (
    Entry,
    classified_entry,
    detected_entry,
    disagreement,
    ranked_rows,
)
from .training_run import Run

THRESHOLD = 0.3


@dataclass
class Contents:
    """What is known of classes and images.

    Args:
        boxes: Whether there are boxes, or images as a whole.
        names: The classes, by their numbers in the entries.
        models: Those that have said something, in order.
        entries: Images, those on which they disagree most first.
        confused: Model to (true, said) to count.
        images: On how many images it was counted.
        accuracy: Model to class to percent, of classifiers.
        objects: Class to the number of its objects.
    """

    boxes: bool
    names: list[str]
    models: list[str]
    entries: list[Entry]
    confused: dict[str, Counter]
    images: int
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    objects: Counter = field(default_factory=Counter)

    @property
    def known(self) -> dict[str, int]:
        """Class name to its number."""
        return {name: index for index, name in enumerate(self.names)}

    def rank(self, scored: Mapping[str, Scored]) -> None:
        """Adds the ranked classes to the entries.

        Args:
            scored: Student to what it and its teacher say.
        """
        for entry in self.entries:
            each = {
                label: {**found.images, **found.extra}.get(entry.name)
                for label, found in scored.items()
            }
            if all(each.values()):
                names = {label: found.names for label, found in scored.items()}
                entry.ranks = ranked_rows(each, names, self.known)


def kept_contents(runs: Sequence[Run], limit: int) -> Contents:
    """From the predictions that detectors' runs keep.

    Args:
        runs: One a label; each keeps its predictions.
        limit: How many images are shown.

    Raises:
        FileNotFoundError: the annotations are not on this machine.
        ValueError: predictions cannot be read, or belong to others.
    """
    from .examples import read_found, read_truths

    config = runs[0].config
    annotations = ground_truth(config)
    if annotations is None:
        raise FileNotFoundError(
            'the annotations of the validation are not on this machine; '
            '--cfg-options data_root=PATH says where they lie'
        )
    dataset = next(inner_datasets(config.val_dataloader.dataset))
    folder = os.path.join(
        dataset.get('data_root') or '',
        (dataset.get('data_prefix') or {}).get('img') or '',
    )
    truths = read_truths(annotations, folder, validated_classes(config))
    columns = {}
    for run in runs:
        found = kept_detections(run.predictions)
        columns[run.label] = read_found(found, truths)
    names = [os.path.abspath(path) for path in truths.files]
    return _detected(
        names, names, truths.objects, columns, truths.names, limit
    )


def _detected(
    images: Sequence[str],
    pictures: Sequence[object],
    objects: Sequence[object],
    columns: dict[str, Sequence[object]],
    names: Sequence[str],
    limit: int,
) -> Contents:
    entries = [
        detected_entry(
            image,
            picture,
            objects[index],
            {label: column[index] for label, column in columns.items()},
        )
        for index, (image, picture) in enumerate(
            zip(tqdm(images, 'images'), pictures, strict=True)
        )
    ]
    confused = {
        label: confused_objects(objects, column, names, THRESHOLD)
        for label, column in columns.items()
    }
    counted = Counter(
        names[label] for each in objects for label in each.labels
    )
    return Contents(
        True,
        [*names, BACKGROUND],
        list(columns),
        _most_disputed(entries, limit, THRESHOLD),
        confused,
        len(entries),
        objects=counted,
    )


def _most_disputed(
    entries: Sequence[Entry], limit: int, threshold: float
) -> list[Entry]:
    order = sorted(
        entries, key=lambda entry: disagreement(entry, threshold), reverse=True
    )
    return order[:limit]


def scored_contents(
    scored: Mapping[str, Scored], teacher: str, limit: int
) -> Contents:
    """From what students and their teacher say of some images.

    Args:
        scored: Student to that.
        teacher: What the teacher is called.
        limit: How many images are shown.
    """
    first = next(iter(scored.values()))
    if next(iter(first.images.values())).found:
        return _scored_detectors(scored, teacher, limit)
    return _scored_classifiers(scored, teacher, limit)


def _scored_detectors(
    scored: Mapping[str, Scored], teacher: str, limit: int
) -> Contents:
    from .verdicts import Detections

    first = next(iter(scored.values()))
    images = list(first.images)
    names = list(first.data_names)
    known = {name: index for index, name in enumerate(names)}

    def column(found: Mapping[str, ImageScores], side: str) -> list:
        return [Detections(*found[image].found[side]) for image in images]

    columns = {teacher: column(first.images, 'teacher')}
    for label, found in scored.items():
        columns[label] = column(found.images, 'student')
    objects = [
        Detections(each.boxes, np.array([known[n] for n in each.labels], int))
        for each in first.images.values()
    ]
    pictures = [first.pictures[image] for image in images]
    return _detected(images, pictures, objects, columns, names, limit)


def _scored_classifiers(
    scored: Mapping[str, Scored], teacher: str, limit: int
) -> Contents:
    first = next(iter(scored.values()))
    every = [name for found in scored.values() for name in found.names]
    names = list(dict.fromkeys([*first.data_names, *every]))
    known = {name: index for index, name in enumerate(names)}
    models = [teacher, *scored]
    entries, confused = [], {model: Counter() for model in models}
    for image, truth in first.images.items():
        wide = {teacher: _spread(truth.teacher[0], first.names, known)}
        for label, found in scored.items():
            row = found.images[image].student[0]
            wide[label] = _spread(row, found.names, known)
        true = truth.labels[0]
        entries.append(
            classified_entry(image, first.pictures[image], known[true], wide)
        )
        for model, row in wide.items():
            confused[model][true, names[row.argmax()]] += 1
    counted = Counter(each.labels[0] for each in first.images.values())
    accuracy = {
        model: {
            name: 100 * confused[model][name, name] / count
            for name, count in counted.items()
        }
        for model in models
    }
    return Contents(
        False,
        names,
        models,
        _most_disputed(entries, limit, 0),
        confused,
        len(entries),
        accuracy,
        counted,
    )


def _spread(
    row: np.ndarray, names: Sequence[str], known: Mapping[str, int]
) -> np.ndarray:
    """Scores in the classes of the page, 0 where there is none."""
    wide = np.zeros(len(known))
    wide[[known[name] for name in names]] = row
    return wide


def logged_classes(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """AP of each class as the last validations logged it, in percent.

    Args:
        runs: All runs; the mean over those of a label is taken.
    """
    found = {}
    for run in runs:
        for key, value in (run.record['scores'] if run.metric else {}).items():
            name = Path(key).name
            if name.endswith('_precision') and value is not None:
                name = name.removesuffix('_precision')
                each = found.setdefault(run.label, {})
                each.setdefault(name, []).append(100 * value)
    return {
        label: {name: float(np.mean(values)) for name, values in each.items()}
        for label, each in found.items()
    }
