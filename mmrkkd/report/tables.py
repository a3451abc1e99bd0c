"""The one writer of tables."""

from collections.abc import Sequence

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
