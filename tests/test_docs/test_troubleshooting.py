"""Every message that docs/en/troubleshooting.md quotes is in the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs/en/troubleshooting.md'
QUOTED = re.findall(r'^### `(.+)`$', PAGE.read_text(), re.M)
# What stands in the place of a value; no text has it.
FIELD = '\0'


def texts():
    """Every string of the package and its tools but docstrings."""
    for folder in ('mmrkkd', 'tools'):
        for path in sorted((ROOT / folder).rglob('*.py')):
            tree = ast.parse(path.read_text())
            prose = {
                id(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Expr)
            }
            for node in ast.walk(tree):
                if id(node) not in prose:
                    yield from text_of(node)


def text_of(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield ''.join(
            part.value if isinstance(part, ast.Constant) else FIELD
            for part in node.values
        )


def pattern_of(quoted):
    """The quoted message as a pattern: '...' is anything, fields included."""
    parts = [re.escape(part.strip()) for part in quoted.split('...')]
    return re.compile(r'[\s\S]*?'.join(parts))


@pytest.fixture(scope='module')
def messages():
    return list(texts())


def test_there_are_messages_to_check():
    assert len(QUOTED) > 40


@pytest.mark.parametrize('quoted', QUOTED)
def test_the_quoted_message_is_in_the_code(quoted, messages):
    pattern = pattern_of(quoted)
    assert any(map(pattern.search, messages)), (
        f'no string of mmrkkd/ or tools/ reads {quoted!r}: correct or remove '
        f'the entry of {PAGE.relative_to(ROOT)}'
    )


def test_a_message_that_is_not_in_the_code_is_noticed(messages):
    pattern = pattern_of('the teacher ... has gone home')
    assert not any(map(pattern.search, messages))
