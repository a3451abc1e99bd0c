"""The blocks of code in the pages of the documentation."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    ROOT / 'docs/site/home.md',
    *sorted((ROOT / 'docs/en').rglob('*.md')),
]
FENCE = re.compile(r'^( *)```(\w*)\s*$')
STARTS_COMMAND = re.compile(r'^(python|mmrkkd|make|pip|tools/|\.venv/)')
PROSE = ('text', 'bibtex', '')


class Block(NamedTuple):
    """A block of code, and where it is."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f'{self.page}:{self.line}'


class Command(NamedTuple):
    """One command of a block, as words, without variables before it."""

    block: Block
    text: str
    words: list

    def __str__(self):
        return f'{self.block}: {self.text}'


def blocks():
    """Every block, fenced or indented."""
    for path in PAGES:
        name = path.relative_to(ROOT).as_posix()
        yield from blocks_of(name, path.read_text())


def blocks_of(page, text):
    """The blocks of one page."""
    fence, start, lines, prose = None, 0, [], ''
    # The empty line ends what is indented at the end of a page.
    for number, line in enumerate([*text.splitlines(), ''], 1):
        mark = FENCE.match(line)
        if fence is not None:
            if line.strip() == '```':
                yield block(page, start, fence[2], lines)
                fence, lines = None, []
            else:
                lines.append(line.removeprefix(fence[1]))
        elif mark:
            fence, start = mark, number
        elif line.startswith('    ') and not re.match(r'[-*\d]', prose):
            start = start if lines else number
            lines.append(line[4:])
        elif lines and line.strip():
            yield block(page, start, '', lines)
            lines, prose = [], line
        elif line.strip():
            prose = line
    if lines:
        yield block(page, start, '', lines)


def block(page, line, language, lines):
    """A block without a language is one of commands if it looks so."""
    text = '\n'.join(lines)
    if not language and any(map(STARTS_COMMAND.match, lines)):
        language = 'shell'
    return Block(page, line, language, text)


def commands():
    """Every command of every block of commands."""
    for found in blocks():
        if found.language in ('shell', 'bash', 'sh'):
            yield from commands_of(found)


def commands_of(found):
    """The commands of a block, its own variables filled in."""
    # <the teacher's config> stands for something: one word.
    text = re.sub(r'<[^>\n]+>', 'PLACEHOLDER', found.text)
    values = {}
    for line in text.replace('\\\n', ' ').splitlines():
        # [CONFIG ...] and ... are what may follow.
        line = re.sub(r'\[[A-Z]+ \.\.\.\]|(?<=\s)\.\.\.', '', line)
        for name, value in values.items():
            line = re.sub(rf'\$(?:{name}\b|\{{{name}\}})', value, line)
        words = shlex.split(line, comments=True)
        loop = re.match(r'for (\w+) in (\S+) .*; do$|done$', line.strip())
        if loop:
            # Of a loop the first turn.
            values.update({loop[1]: loop[2]} if loop[1] else {})
            continue
        while words and (found_value := re.match(r'([A-Z_]+)=(.*)', words[0])):
            if len(words) == 1:
                values[found_value[1]] = found_value[2]
            words = words[1:]
        if words:
            yield Command(found, shlex.join(words), words)


def spans():
    """(page, text) of every span of code within a line."""
    for path in PAGES:
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text()
        text = re.sub(r'^ *```.*?^ *```$', '', text, flags=re.M | re.S)
        # Messages that are quoted.
        text = re.sub(r'^### `.*`$', '', text, flags=re.M)
        for found in re.findall(r'`([^`\n]+(?:\n[^`\n]+)?)`', text):
            yield name, ' '.join(found.split())
