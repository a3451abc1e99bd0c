"""The reference: pages made of docstrings, and of what --help prints."""

import contextlib
import importlib
import inspect
import io
import os
import pkgutil
from pathlib import Path
from unittest import mock

from mmengine.hooks import Hook
from torch import nn

# Page -> title and the packages whose public names it shows.
PAGES = {
    'losses': ('Logit losses', ['mmrkkd.losses']),
    'feature_losses': ('Feature losses', ['mmrkkd.losses.feature']),
    'ops': ('Operators', ['mmrkkd.ops']),
    'distillers': ('Distillers', ['mmrkkd.distillers']),
    'readers': ('Readers', ['mmrkkd.distillers.readers']),
    'hooks': ('Hooks and runs', ['mmrkkd.engine.hooks', 'mmrkkd.engine']),
    'data': ('Data', ['mmrkkd.datasets']),
    'backbones': ('Backbones', ['mmrkkd.backbones']),
    'evaluation': ('Evaluation', ['mmrkkd.evaluation']),
    'python': ('Commands from Python', ['mmrkkd.commands']),
}
# Classes that nobody imports by name: configs do.
FOUND = ('mmrkkd.losses.feature', 'mmrkkd.distillers.readers')
# What a program calls, of the modules of commands.
CALLED = {
    'mmrkkd.commands': [
        'mmrkkd.commands.distill.distill',
        'mmrkkd.commands.report.report',
    ]
}
COLUMNS = '79'


def write_pages(folder: Path) -> None:
    """Writes every page of the reference."""
    folder.mkdir(parents=True)
    for name, (title, packages) in PAGES.items():
        parts = [f'# {title}', *map(package_section, packages)]
        (folder / f'{name}.md').write_text('\n\n'.join(parts) + '\n')
    (folder / 'commands.md').write_text(commands_page())


def package_section(package: str) -> str:
    """A package's docstring, a table of its public names, and each of them."""
    names = public_names(package)
    module = importlib.import_module(package)
    lines = [
        *inspect.cleandoc(module.__doc__).splitlines(),
        '',
        '.. autosummary::',
        '',
        *(f'   ~{name}' for name in names),
        '',
    ]
    for name in names:
        lines += [*entry(name, names), '']
    return '```{eval-rst}\n' + '\n'.join(lines) + '\n```'


def public_names(package: str) -> list[str]:
    """Full names of its classes and functions, as they are imported."""
    if package in CALLED:
        return CALLED[package]
    module = importlib.import_module(package)
    # What the page of a package inside it shows stands there.
    inside = {
        name.rpartition('.')[2]
        for _, packages in PAGES.values()
        for other in packages
        if other.startswith(f'{package}.')
        for name in public_names(other)
    }
    names = [
        f'{package}.{name}'
        for name in module.__all__
        if callable(getattr(module, name)) and name not in inside
    ]
    return names + (found_names(package) if package in FOUND else [])


def found_names(package: str) -> list[str]:
    """Classes that its modules define and that have a base class in it."""
    module = importlib.import_module(package)
    bases = tuple(
        value
        for name in module.__all__
        if inspect.isclass(value := getattr(module, name))
    )
    names = []
    for info in pkgutil.iter_modules(module.__path__, f'{package}.'):
        inner = importlib.import_module(info.name)
        names += [
            f'{info.name}.{name}'
            for name, value in vars(inner).items()
            if inspect.isclass(value)
            and value.__module__ == info.name
            and issubclass(value, bases)
            and value not in bases
            and not name.startswith('_')
        ]
    return names


def entry(name: str, names: list[str]) -> list[str]:
    """The directive that shows one class or function.

    Args:
        name: Its full name.
        names: Those of its package that are shown beside it.
    """
    value = pkgutil.resolve_name(name)
    if not inspect.isclass(value):
        return [f'.. autofunction:: {name}', '']
    # Methods of a base class are what is written against; its subclasses'
    # are the same again, and those of a module or a hook are its caller's.
    others = [pkgutil.resolve_name(other) for other in names]
    is_base = any(
        inspect.isclass(other) and issubclass(other, value)
        for other in others
        if other is not value
    )
    plain = not issubclass(value, (nn.Module, Hook))
    members = ['   :members:'] if is_base or plain else []
    if any(other in value.__mro__[1:] for other in others):
        members = []
    return [f'.. autoclass:: {name}', *members, '']


def commands_page() -> str:
    """What the program and each of its commands print for --help."""
    from mmrkkd.commands import program

    parts = ['# Commands', '', fenced(program.usage())]
    for name, command in program.COMMANDS.items():
        parts += [
            f'## mmrkkd {name}',
            f'{command.what[0].upper()}{command.what[1:]}.',
            fenced(help_of(name)),
        ]
    return '\n\n'.join(parts) + '\n'


def help_of(name: str) -> str:
    """What ``mmrkkd NAME --help`` prints."""
    from mmrkkd.commands import program

    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS=COLUMNS),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        program.main([name, '--help'])
    if 'usage' not in printed.getvalue().lower():
        raise RuntimeError(
            f'mmrkkd {name} --help printed {printed.getvalue()!r}'
        )
    return printed.getvalue()


def fenced(text: str) -> str:
    return f'```text\n{text.rstrip()}\n```'
