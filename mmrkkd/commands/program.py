"""The program ``mmrkkd``: finds the command and hands the rest to it.

Nothing but the standard library is imported here, so that the doctor runs
where nothing is installed.
"""

import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

from mmrkkd.shipped import shipped
from mmrkkd.version import __version__


class Command(NamedTuple):
    """One command.

    Args:
        where: 'module:function' of the package, called with the arguments;
            or the path of a script below tools/, which is run.
        what: What it does, one line.
    """

    where: str
    what: str


COMMANDS = {
    'distill': Command(
        'mmrkkd.commands.distill:main',
        'distil a teacher into a student, no config to write',
    ),
    'check-teacher': Command(
        'mmrkkd.commands.preflight:main',
        'before the hours are spent: is the teacher any good here',
    ),
    'train': Command('train.py', 'train or distil from a config'),
    'test': Command('test.py', 'evaluate a checkpoint'),
    'agreement': Command(
        'analysis_tools/teacher_agreement.py',
        'how well a trained student follows its teacher',
    ),
    'calibrate': Command(
        'calibrate.py', 'how hard each loss pulls, and weights to match'
    ),
    'ablate': Command(
        'ablation.py', 'train methods with several seeds and compare them'
    ),
    'report': Command(
        'mmrkkd.commands.report:main',
        'one web page of finished runs, to look at',
    ),
    'figure': Command(
        'mmrkkd.commands.figure:main',
        "the papers' figures, from your own runs",
    ),
    'publish': Command(
        'mmrkkd.commands.publish:main',
        'a small file of weights out of a checkpoint',
    ),
    'doctor': Command('doctor.py', 'what is wrong with this environment'),
}
EXAMPLE = """\
Example:
  mmrkkd distill student.py --teacher teacher.py teacher.pth --dry-run
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit code.

    Args:
        argv: The command line without the program. Defaults to that of the
            process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ('-h', '--help', 'help'):
        print(usage())
        return 0 if argv else 2
    if argv[0] == '--version':
        print(f'mmrkkd {__version__}')
        return 0
    name, arguments = argv[0], argv[1:]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f': did you mean {near[0]!r}?' if near else '.'
        print(
            f'mmrkkd: there is no command {name!r}{hint} The commands: '
            f'{", ".join(COMMANDS)}',
            file=sys.stderr,
        )
        return 2
    where = COMMANDS[name].where
    if where.endswith('.py'):
        return run_script(shipped('tools', where), f'mmrkkd {name}', arguments)
    module, function = where.split(':')
    return getattr(import_module(module), function)(arguments)


def usage() -> str:
    """The text of --help."""
    width = max(map(len, COMMANDS)) + 2
    lines = [
        f'  {name:{width}}{command.what}' for name, command in COMMANDS.items()
    ]
    return '\n'.join(
        [
            'Usage: mmrkkd COMMAND [OPTIONS]',
            '',
            'Rank-based knowledge distillation for MMDetection and MMPretrain',
            '',
            'Commands:',
            *lines,
            '',
            "'mmrkkd COMMAND --help' tells the options of a command.",
            '',
            EXAMPLE.rstrip(),
        ]
    )


def run_script(path: Path, program: str, arguments: list[str]) -> int:
    """Runs a script of tools/ as ``python path arguments`` would.

    Args:
        path: The script.
        program: What it calls itself in its help.
        arguments: Its command line.

    Returns:
        The exit code.
    """
    spec = spec_from_file_location('__main__', path)
    script = module_from_spec(spec)
    before = sys.argv, list(sys.path), sys.modules['__main__']
    # runpy would put the script's path in the place of the program's name.
    sys.argv = [program, *arguments]
    # Where a script finds the modules beside the other scripts.
    sys.path.insert(0, str(path.parent))
    sys.modules['__main__'] = script
    try:
        spec.loader.exec_module(script)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    finally:
        sys.argv, sys.path[:], sys.modules['__main__'] = before
    return 0
