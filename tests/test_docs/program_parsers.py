"""The parser of options of each program that the documentation names."""

import argparse
import functools
import re
from unittest import mock

from doc_blocks import ROOT

from mmrkkd.commands import program
from mmrkkd.report.figures import FIGURES

PYTHON = re.compile(r'(\.venv/bin/)?python3?')


class Found(BaseException):
    """Ends a program as soon as it would read its command line."""

    def __init__(self, parser):
        self.parser = parser


@functools.cache
def parser_of(name):
    """The parser of a script below the root, or of a command of mmrkkd.

    Args:
        name: 'tools/x.py', or a command with what chooses its parser.
    """

    def stop(parser, *args, **kwargs):
        raise Found(parser)

    with (
        mock.patch.object(argparse.ArgumentParser, 'parse_args', stop),
        mock.patch.object(argparse.ArgumentParser, 'parse_known_args', stop),
    ):
        try:
            if name.endswith('.py'):
                program.run_script(ROOT / name, name, [])
            else:
                program.main(name.split())
        except Found as found:
            return found.parser
    raise LookupError(f'{name} read no command line')


def target_of(words):
    """(name for parser_of, its arguments) of a command that is ours.

    None if it is another's.
    """
    if PYTHON.fullmatch(words[0]) and words[1:3] == ['-m', 'mmrkkd']:
        return target_of(words[2:])
    if words[:2] == ['mmrkkd', 'figure']:
        # Each figure has options of its own.
        name = words[2] if words[2] in FIGURES else next(iter(FIGURES))
        return f'figure {name}', [name, *words[3:]]
    if PYTHON.fullmatch(words[0]) and re.match(r'(tools|docs)/', words[1]):
        return words[1], words[2:]
    if words[0] == 'mmrkkd':
        return words[1], words[2:]
    if words[0] == 'tools/dist_train.sh':
        config, _gpus, *rest = words[1:]
        return 'tools/train.py', [config, *rest]
    if words[0] == 'tools/slurm_train.sh':
        _partition, _job, config, folder, *rest = words[1:]
        return 'tools/train.py', [config, '--work-dir', folder, *rest]
    return None


def make_targets():
    """Target of the Makefile -> its recipe."""
    text = (ROOT / 'Makefile').read_text().replace('\\\n', ' ')
    return dict(re.findall(r'^([a-z][\w-]*):.*\n((?:\t.*\n)*)', text, re.M))
