"""The page of a selection of runs."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmrkkd.evaluation.image_scores import Scored

from .box_styles import STYLES as BOX_STYLES
from .box_styles import WORDS
from .class_sections import (
    classes_section,
    confusion_section,
    curves_section,
    gallery_section,
)
from .confusions import most_disputed_pairs
from .contents import (
    THRESHOLD,
    Contents,
    logged_classes,
)
from .curves import COLOURS, STYLES, Curve, Series
from .gallery import LEAST_SCORE
from .gallery import as_data as entry_data
from .orders import agreements, swaps
from .page import Section, page
from .panels import as_data as curve_data
from .panels import panels, series, unit
from .run_sections import runs_section, settings_section, summary_section
from .selection import Selection

MOST_PAIRS = 20
MOST_PLOTTED_CLASSES = 30
SHOWN_MODELS = 4
NO_IMAGES = (
    'No image is shown: the runs keep no predictions. With --scores the '
    'models are run on images of the validation set.'
)


class Curves:
    """The curves of a selection.

    ``groups`` is group to panels, ``runs`` label to the points of each
    seed, ``units`` group to what its time counts.

    Args:
        selection: The runs.
    """

    def __init__(self, selection: Selection) -> None:
        self.groups: dict[str, list[Curve]] = panels(selection.runs)
        keys = [
            curve.keys[0] for each in self.groups.values() for curve in each
        ]
        self.runs: dict[str, list[dict[str, Series]]] = {
            label: [series(run, keys) for run in selection.of(label)]
            for label in selection.labels
        }
        self.units = {
            group: unit(selection.runs, group) for group in self.groups
        }

    @property
    def seeds(self) -> int:
        """The most that a label has."""
        return max(map(len, self.runs.values()))


def whole_page(
    title: str,
    selection: Selection,
    rows: Sequence[dict],
    classes: Mapping[str, Mapping[str, float]],
    contents: Contents | None,
    scored: Mapping[str, Scored],
    unfinished: Sequence,
    note: str = '',
) -> str:
    """The whole page as text.

    Args:
        title: Its heading.
        selection: The runs.
        rows: Of :func:`class_scores_and_rows`.
        classes: The same.
        contents: Of images, None where nothing is known of them.
        scored: What students and teacher say of images, {} if not asked.
        unfinished: Folders of cells without a result.
        note: Why nothing is known of images. Defaults to nothing.
    """
    curves = Curves(selection)
    gallery, why = _gallery(contents, selection)
    section, plotted = class_chart(selection, classes, contents)
    sections = [
        summary_section(
            selection.runs,
            rows,
            selection.baseline,
            selection.metric,
            unfinished,
        ),
        runs_section(
            selection.runs, rows, selection.baseline, selection.metric
        ),
        curves_section(list(curves.groups), curves.seeds),
        section,
        _confusions(contents, scored),
        gallery_section(why or note or NO_IMAGES, gallery is not None),
        settings_section(selection.runs),
    ]
    data = dict(
        runs={
            label: dict(
                number=number,
                colour=COLOURS[number % len(COLOURS)],
                dash=STYLES[number % len(STYLES)],
            )
            for label, number in model_numbers(selection, contents).items()
        },
        curves=curve_data(curves.runs, curves.groups, curves.units),
        classes=plotted,
        gallery=gallery,
    )
    return page(title, [each for each in sections if each], data)


_NONE = Contents(False, [], [], [], {}, 0)


def model_numbers(
    selection: Selection, contents: Contents | None
) -> dict[str, int]:
    """By which number a model has its colour, in every chart.

    Args:
        selection: The runs.
        contents: Of images, None where nothing is known of them.
    """
    names = [*selection.labels, *(contents or _NONE).models]
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def class_chart(
    selection: Selection,
    classes: Mapping[str, Mapping[str, float]],
    contents: Contents | None,
) -> tuple[Section | None, dict | None]:
    """The section on the classes, and what its chart draws.

    Args:
        selection: The runs.
        classes: See :func:`whole_page`.
        contents: The same.

    Returns:
        None and None where no score of a class is known; else the section,
        and ``names``, ``unit`` and ``values``: model to a number for each
        name, None where there is none.
    """
    counts = contents.objects if contents else {}
    note = 'COCO AP in percent, on all images; the mean over the seeds.'
    metric = 'AP'
    if not classes:
        classes = logged_classes(selection.runs)
        note = 'As the last validation logged it; the mean over the seeds.'
    if not classes and contents and contents.accuracy:
        classes, metric = contents.accuracy, 'Accuracy'
        note = (
            f'On {contents.images} images, evenly spaced over the '
            'validation set; the first seed of each.'
        )
    if not classes:
        return None, None
    names = _most_differing(classes)
    if len(names) == MOST_PLOTTED_CLASSES:
        note += f' The plot shows the {len(names)} that differ most.'
    plotted = dict(
        names=names,
        unit=f'{metric}, %',
        values={
            label: [_number(each.get(name)) for name in names]
            for label, each in classes.items()
        },
    )
    return classes_section(classes, counts, metric, note), plotted


def _most_differing(
    classes: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """At most so many classes as a plot can show, in their order."""
    names = list(dict.fromkeys(n for each in classes.values() for n in each))

    def span(name: str) -> float:
        values = [_number(each.get(name)) for each in classes.values()]
        values = [value for value in values if value is not None]
        return max(values, default=0) - min(values, default=0)

    kept = sorted(names, key=span, reverse=True)[:MOST_PLOTTED_CLASSES]
    return [name for name in names if name in kept]


def _number(value: float | None) -> float | None:
    known = value is not None and np.isfinite(value)
    return round(float(value), 2) if known else None


def _confusions(
    contents: Contents | None, scored: Mapping[str, Scored]
) -> Section | None:
    if contents is None:
        return None
    swapped, seen = swaps(scored)
    note = f'On {contents.images} images, the first seed of each method'
    if contents.boxes:
        note += (
            f'; an object is taken for what the strongest detection above '
            f'{THRESHOLD:g} says that overlaps it by at least half'
        )
    if scored:
        count = len(next(iter(scored.values())).images)
        note += f'. Orders: on {count} images, evenly spaced'
    return confusion_section(
        contents.confused,
        most_disputed_pairs(contents.confused, MOST_PAIRS),
        swapped,
        sorted(
            (pair for pair in seen if any(e[pair] for e in swapped.values())),
            key=lambda pair: (-max(e[pair] for e in swapped.values()), pair),
        )[:MOST_PAIRS],
        seen,
        agreements(scored),
        f'{note}.',
    )


def _gallery(
    contents: Contents | None, selection: Selection
) -> tuple[dict | None, str]:
    """What the gallery draws, and how its images were chosen."""
    if contents is None or not contents.entries:
        return None, ''
    try:
        entries = [entry_data(entry) for entry in contents.entries]
    except FileNotFoundError as error:
        return None, (
            f'The images are left out: {error.filename} is not there. Make '
            'this page again with --cfg-options data_root=PATH, the folder '
            'of the data on this machine.'
        )
    except OSError as error:
        return None, f'The images are left out, one cannot be read: {error}.'
    models = contents.models
    shown = models
    if len(models) > SHOWN_MODELS:
        first = [selection.teacher or models[0], selection.baseline]
        shown = list(dict.fromkeys([*first, *models[1 - SHOWN_MODELS :]]))
    data = dict(
        boxes=contents.boxes,
        names=contents.names,
        models=models,
        shown=shown[:SHOWN_MODELS],
        styles={
            kind: dict(colour=style['edgecolor'], dash=style['linestyle'])
            for kind, style in BOX_STYLES.items()
        },
        meanings=WORDS,
        threshold=THRESHOLD if contents.boxes else 0,
        least=LEAST_SCORE if contents.boxes else 0,
        entries=entries,
    )
    what = 'objects' if contents.boxes else 'images'
    return data, (
        f'{len(entries)} of {contents.images} images, those with the most '
        f'{what} that some models get right and others do not. So chosen '
        'they are no sample: count nothing in them.'
    )
