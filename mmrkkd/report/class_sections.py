"""The page on curves, classes and images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from .page import Section
from .tables import html_table

SWAPPED = "pairs of the teacher's five leading classes in the wrong order, %"


def curves_section(groups: Sequence[str], seeds: int) -> Section:
    """Where the page draws the curves."""
    if not groups:
        return Section('curves', 'Curves', '<p>The logs hold no curve.</p>')
    text = 'Drag to zoom, double-click to go back, point at a line to read it.'
    if seeds > 1:
        text += ' A line is the mean over the seeds, the band their range.'
    return Section(
        'curves',
        'Curves',
        f'<p class="note">{text}</p>'
        '<form class="controls" id="runs-shown"></form>'
        '<div id="plots"></div>',
    )


def classes_section(
    scores: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, int],
    metric: str,
    note: str,
) -> Section:
    """The score of each class, model beside model.

    Args:
        scores: Model to class name to score in percent, NaN where a class
            has no object.
        counts: Class name to the number of its objects, {} if unknown.
        metric: What the scores are.
        note: On what they were measured, plain text.
    """
    names = list(
        dict.fromkeys(name for each in scores.values() for name in each)
    )
    head = ['class', *['objects'] * bool(counts), *scores]
    lines = [
        [
            name,
            *[str(counts.get(name, 0))] * bool(counts),
            *(_known(each.get(name)) for each in scores.values()),
        ]
        for name in names
    ]
    return Section(
        'classes',
        f'{metric} class by class',
        f'<p class="note">{escape(note)}</p>'
        '<div id="class-plot"></div>' + html_table(head, lines, sortable=True),
    )


def _known(value: float | None) -> str:
    return '-' if value is None or value != value else f'{value:.1f}'


def confusion_section(
    confused: Mapping[str, Counter],
    pairs: Sequence[tuple[str, str]],
    swapped: Mapping[str, Counter],
    swapped_pairs: Sequence[tuple[str, str]],
    seen: Counter,
    agreements: Mapping[str, Sequence[float]],
    note: str,
) -> Section:
    """Which classes the models take for each other.

    Args:
        confused: Model to (true, said) to count.
        pairs: Those that are shown.
        swapped: Student to (first, second for the teacher) to how often it
            has them in the other order; {} where it was not asked.
        swapped_pairs: Those that are shown.
        seen: How often the teacher has them so.
        agreements: Student to mean tau (NaN where there is none), the same
            first class and swapped pairs in percent; {} where it was not
            asked.
        note: On what it was counted, plain text.
    """
    parts = [f'<p class="note">{escape(note)}</p>']
    if pairs:
        lines = [
            [
                first,
                second,
                *(str(each[first, second]) for each in confused.values()),
            ]
            for first, second in pairs
        ]
        parts.append(
            html_table(
                ['true class', 'taken for', *confused],
                lines,
                2,
                'Confusions on which the models differ most',
                True,
            )
        )
    if agreements:
        lines = [
            [
                label,
                f'{tau:.3f}' if tau == tau else '-',
                f'{same:.1f}',
                f'{swaps:.1f}',
            ]
            for label, (tau, same, swaps) in agreements.items()
        ]
        parts.append(
            html_table(
                ['student', 'mean tau', 'same first class, %', SWAPPED],
                lines,
                1,
                "The students' order of the classes against the teacher's",
            )
        )
    if swapped_pairs:
        lines = [
            [
                *pair,
                str(seen[pair]),
                *(str(each[pair]) for each in swapped.values()),
            ]
            for pair in swapped_pairs
        ]
        parts.append(
            html_table(
                ['before, for the teacher', 'after', 'times', *swapped],
                lines,
                2,
                "Pairs among the teacher's five leading classes that the "
                'students put in the wrong order most often',
                True,
            )
        )
    if not pairs and not swapped_pairs:
        parts.append('<p>No two classes were confused.</p>')
    return Section('confusions', 'Confusions', '\n'.join(parts))


def gallery_section(note: str, images: bool) -> Section:
    """Where the page draws the gallery.

    Args:
        note: How the images were chosen, or why there are none; plain text.
        images: Whether there are any.
    """
    html = f'<p class="note">{escape(note)}</p>'
    if images:
        html += (
            '<form class="controls" id="filters"></form>'
            '<p id="shown" role="status" aria-live="polite"></p>'
            '<div id="images"></div>'
        )
    return Section('gallery', 'Gallery', html)
