"""The one writer of tables."""

from collections.abc import Sequence
from html import escape

Lines = Sequence[Sequence[str]]


def markdown_table(head: Sequence[str], lines: Lines, texts: int = 1) -> str:
    """A Markdown table.

    Args:
        head: A title for each column.
        lines: The cells, each line as many as there are titles.
        texts: How many columns are texts, aligned to the left; the others
            are numbers, aligned to the right. Defaults to 1.

    Raises:
        ValueError: a line has more or fewer cells than the head.
    """
    widths = _widths(head, lines)
    rule = ['-' * width for width in widths]
    rule[texts:] = [dashes[:-1] + ':' for dashes in rule[texts:]]
    return '\n'.join(
        f'| {" | ".join(_padded(line, widths, texts))} |'
        for line in (head, rule, *lines)
    )


def plain_table(head: Sequence[str], lines: Lines, texts: int = 1) -> str:
    """The same without rules, for a terminal.

    Args:
        head: A title for each column.
        lines: The cells, each line as many as there are titles.
        texts: See :func:`markdown_table`. Defaults to 1.

    Raises:
        ValueError: a line has more or fewer cells than the head.
    """
    widths = _widths(head, lines)
    return '\n'.join(
        '  '.join(_padded(line, widths, texts)).rstrip()
        for line in (head, *lines)
    )


def html_table(
    head: Sequence[str],
    lines: Lines,
    texts: int = 1,
    caption: str = '',
    sortable: bool = False,
) -> str:
    """The same for a web page.

    Args:
        head: A title for each column.
        lines: The cells as plain text, which is escaped.
        texts: See :func:`markdown_table`. Defaults to 1.
        caption: Above the table. Defaults to nothing.
        sortable: Let the page's script sort it. Defaults to False.

    Raises:
        ValueError: a line has more or fewer cells than the head.
    """
    rows = ['<tr>' + ''.join(_heads(head, texts)) + '</tr>']
    for line in lines:
        cells = [
            f'<td{_kind(number, texts)}>{escape(cell)}</td>'
            for number, (_, cell) in enumerate(zip(head, line, strict=True))
        ]
        cells[0] = f'<th scope="row">{escape(line[0])}</th>'
        rows.append(f'<tr>{"".join(cells)}</tr>')
    name = escape(caption or head[0])
    shown = f'<caption>{name}</caption>' if caption else ''
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{name}">'
        f'<table{" data-sort" * sortable}>{shown}<thead>{rows[0]}</thead>'
        f'<tbody>{"".join(rows[1:])}</tbody></table></div>'
    )


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """A number with so many decimals, '-' for None."""
    if value is None:
        return '-'
    return f'{value:{"+" if signed else ""}.{digits}f}'


def plus_minus(
    spread: dict,
    digits: int,
    scale: float = 1,
    deviation: str = 'std',
    signed: bool = False,
) -> str:
    """'mean ± deviation', the mean alone, or '-'.

    Args:
        spread: ``mean`` and deviations, each a number or None; see
            ``summarize``.
        digits: Decimals.
        scale: What both numbers are multiplied by. Defaults to 1.
        deviation: The second number's name. Defaults to 'std'.
        signed: Write the mean's sign, of plus too. Defaults to False.
    """
    mean, other = spread.get('mean'), spread.get(deviation)
    if mean is None:
        return '-'
    text = number(scale * mean, digits, signed)
    return text if other is None else f'{text} ± {scale * other:.{digits}f}'


def _heads(head: Sequence[str], texts: int) -> list[str]:
    return [
        f'<th scope="col"{_kind(number, texts)}>{escape(title)}</th>'
        for number, title in enumerate(head)
    ]


def _kind(number: int, texts: int) -> str:
    return '' if number < texts else ' class="number"'


def _widths(head: Sequence[str], lines: Lines) -> list[int]:
    # A rule that says where to align needs two characters.
    return [
        max(2, *map(len, column)) for column in zip(head, *lines, strict=True)
    ]


def _padded(
    line: Sequence[str], widths: Sequence[int], texts: int
) -> list[str]:
    return [
        cell.ljust(width) if number < texts else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
