"""Every command of the documentation exists and takes what it is given."""

import glob
import itertools
import re
import shlex

import pytest
from doc_blocks import (
    PROSE,
    ROOT,
    Block,
    blocks,
    blocks_of,
    commands,
    commands_of,
    spans,
)
from program_parsers import make_targets, parser_of, target_of

from mmrkkd.cli import load_config
from mmrkkd.commands.program import COMMANDS

ALL = list(commands())
# Commands of others: how they begin, and why nothing here can check them.
OTHERS = {
    'pip install': 'changes an environment',
    '.venv/bin/pip install': 'changes an environment',
    'sudo apt-get install': 'changes a machine',
    'export': 'a variable of the shell',
    'package=$(': "MMDetection's own script",
    'python $package/.mim/tools/model_converters/publish_model.py': (
        "MMDetection's own script; tests/test_together runs it"
    ),
}
# Not Python's or the shell's, but what programs print.
LANGUAGES = ('shell', 'python', *PROSE)
# What is named and is not in a checkout: of the wheel, and of a user.
MADE = (
    'mmrkkd/.mim',
    'mmrkkd/losses/cosine.py',
    'mmrkkd/losses/feature/channel_mean.py',
    'mmrkkd/distillers/readers/cells.py',
    'configs/kd_x.py',
    'configs/rkkd_x.py',
)


def ids(values):
    return [str(value) for value in values]


def test_the_documentation_has_blocks():
    assert len(ALL) > 50
    assert {found.language for found in blocks()} <= set(LANGUAGES)


@pytest.mark.parametrize('command', ALL, ids=ids(ALL))
def test_the_command_takes_its_options(command, capsys):
    check(command, capsys)


def check(command, capsys):
    words, text = command.words, command.text
    if words[0] == 'make':
        check_make(words[1:], capsys)
        return
    target = target_of(words)
    if target is None:
        known = [
            start
            for start in OTHERS
            if text.replace("'", '').startswith(start)
        ]
        assert known, f'{command}: neither ours nor declared in OTHERS'
        return
    if target[1] != ['--help']:
        parse(*target, capsys)


def parse(name, arguments, capsys):
    """Fails with what the program says of its command line."""
    try:
        parser_of(name).parse_args(arguments)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def check_make(words, capsys):
    """The targets exist; variables are used; *_ARGS are options."""
    targets, text = make_targets(), (ROOT / 'Makefile').read_text()
    for word in words:
        name, _, value = word.partition('=')
        if not _:
            assert word in targets, f'make {word}: no such target'
            continue
        assert f'$({name})' in text, f'the Makefile has no {name}'
        recipe = ''.join(targets.get(w, '') for w in words)
        script = re.search(rf'(tools/\S+\.py) \$\({name}\)', recipe)
        if script:
            parse(script[1], shlex.split(value), capsys)


@pytest.mark.parametrize(
    'text',
    [
        'mmrkkd distill a.py --teacher b.py',
        'python tools/train.py c.py --wrok-dir x',
        'make demmo',
        'make demo DEMO_ARGS=--quikc',
        'rm -r data',
    ],
)
def test_a_wrong_command_is_noticed(text, capsys):
    block = Block('page.md', 1, 'shell', text)
    (command,) = commands_of(block)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(command, capsys)


def changed_configs():
    """(config, KEY=VALUE, where) of commands that change a config of ours."""
    for command in ALL:
        if '--cfg-options' not in command.words:
            continue
        place = command.words.index('--cfg-options')
        options = itertools.takewhile(
            lambda word: not word.startswith('--'), command.words[place + 1 :]
        )
        configs = [
            word
            for word in command.words
            if re.fullmatch(r'configs/\S+\.py', word)
        ]
        for config, option in itertools.product(configs, options):
            yield config, option, str(command.block)


CHANGES = sorted(set(changed_configs()))


@pytest.mark.parametrize(('config', 'option', 'where'), CHANGES)
def test_the_setting_that_is_changed_exists(
    config, option, where, monkeypatch
):
    monkeypatch.setenv('NUM_CLASSES', '20')
    monkeypatch.setenv('PHOTOS_WEIGHTS', 'weights')
    first, *rest = option.partition('=')[0].split('.')
    inside = load_config(config)
    assert first in inside, where
    # The last may be new: a setting that the config leaves at its default.
    for name in [first, *rest][:-1]:
        inside = inside[int(name) if name.isdigit() else name]


NAMED = sorted(
    {
        (page, word.rstrip('.,;:'))
        for page, text in [
            *spans(),
            *((found.page, found.text) for found in blocks()),
        ]
        for word in re.findall(
            r'(?<![\w/.:{}$-])(?:configs|tools|docs|mmrkkd|tests|requirements)'
            r'/[\w./{},*+-]*',
            text,
        )
    }
)


@pytest.mark.parametrize(('page', 'path'), NAMED, ids=map('-'.join, NAMED))
def test_the_file_that_is_named_exists(page, path):
    if path.startswith(MADE):
        return
    for one in braces(path.rstrip('/')):
        pattern = re.sub(r'_?\.{3}$', '*', one)
        assert glob.glob(str(ROOT / pattern)), f'{page} names {one}'


def braces(path):
    """a{b,c} as ab and ac."""
    found = re.search(r'\{([^{}]*)\}', path)
    if not found:
        return [path]
    return [
        one
        for choice in found[1].split(',')
        for one in braces(path[: found.start()] + choice + path[found.end() :])
    ]


SHORT = sorted(
    {
        (page, text)
        for page, text in spans()
        if re.match(r'(mmrkkd|make|python tools/\S+) [\w-]', text)
    }
)


@pytest.mark.parametrize(('page', 'text'), SHORT, ids=map(': '.join, SHORT))
def test_the_command_within_a_line_exists(page, text):
    words = shlex.split(re.sub(r'<[^>]+>', 'X', text.replace('...', '')))
    if words[0] == 'make':
        assert words[1] in make_targets(), f'{page}: {text}'
        return
    if words[0] == 'mmrkkd' and words[1].startswith('-'):
        assert words[1:] == ['--version'], f'{page}: {text}'
        return
    assert words[0] != 'mmrkkd' or words[1] in COMMANDS, f'{page}: {text}'
    name, arguments = target_of(words)
    known = parser_of(name)._option_string_actions
    for word in arguments:
        if word.startswith('--') and word != '--help':
            assert word.partition('=')[0] in known, f'{page}: {text}'


def test_blocks_are_found_however_they_are_written():
    text = (
        'Text:\n\n```python\nx = 1\n```\n\nindented:\n\n    make demo\n\n'
        '    make test\n\nmore\n\n- item\n\n    continued\n\n'
        '- listed:\n\n  ```shell\n  make lint\n  ```\n'
    )
    found = [(b.line, b.language, b.text) for b in blocks_of('p', text)]
    assert found == [
        (3, 'python', 'x = 1'),
        (9, 'shell', 'make demo\nmake test'),
        (21, 'shell', 'make lint'),
    ]
