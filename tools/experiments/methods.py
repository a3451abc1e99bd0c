"""What the command line and sweep files say about methods."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from mmrkkd.cli import find_config

from . import ExperimentError

SPEC = re.compile(
    r'(?:(?P<label>[^=:,/]+)=)?'
    r'(?P<path>(?:\w+::)?[^=:,]+\.(?:py|ya?ml|json))'
    r'(?::(?P<options>.*))?'
)
LABEL = re.compile(r'(?!\.{1,2}$)[\w.+-]+')
SWEEP_KEYS = {'cells', 'cfg_options', 'seeds', 'baseline'}


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Args:
        label: Its name, that of its folder too.
        config: Path of its config, or its name in a package
            ('mmdet::...').
        options: Settings to change in it, as for ``--cfg-options``.
        title: What it is called where there is room. Defaults to the label.
        cost: How long one of its epochs takes, in any unit that all methods
            share, for the remaining time before it was measured.
            Defaults to 1.0.
    """

    label: str
    config: Path
    options: dict = field(default_factory=dict)
    title: str = ''
    cost: float = 1.0


def parse_methods(
    arguments: Sequence[str],
) -> tuple[list[Method], dict]:
    """Reads what the command line says about methods.

    Args:
        arguments: Configs, ``label=config:key=value,...``, or sweep files;
            a config as :func:`mmrkkd.cli.find_config` takes it.

    Returns:
        The methods, and the settings ``seeds`` and ``baseline`` that sweep
        files state.

    Raises:
        ExperimentError: an argument cannot be understood, a file is missing
            or two methods have one label.
    """
    methods, defaults = [], {}
    for argument in arguments:
        match = SPEC.fullmatch(argument)
        if match is None:
            raise ExperimentError(
                f'{argument!r} is no method: expected CONFIG.py, '
                'LABEL=CONFIG.py, LABEL=CONFIG.py:KEY=VALUE,KEY=VALUE or a '
                'sweep file'
            )
        path = _found(match['path'])
        sweep = _sweep(path) if match['label'] is None else None
        if sweep is None:
            label = match['label'] or path.stem.split('_')[0]
            options = _options(match['options'] or '')
            methods.append(Method(label, path, options))
        else:
            methods += _sweep_methods(path, sweep, match['options'] or '')
            for name in ('seeds', 'baseline'):
                if name in sweep:
                    defaults[name] = sweep[name]
    _check_labels(methods)
    return methods, defaults


def _found(name: str) -> Path:
    """A config as it was given if that is a file, or else where it lies."""
    try:
        found = find_config(name)
    except FileNotFoundError as error:
        raise ExperimentError(str(error)) from error
    return Path(name if Path(name).is_file() else found)


def _sweep(path: Path) -> dict | None:
    """The content of a sweep file; None for an ordinary config."""
    if '::' in str(path):
        return None
    # JSON may stand on one line.
    start = '' if path.suffix == '.json' else r'^\s*'
    if not re.search(start + r'"?cells"?\s*[=:]', path.read_text(), re.M):
        return None
    sweep = Config.fromfile(path).to_dict()
    unknown = sorted(set(sweep) - SWEEP_KEYS)
    if unknown or not isinstance(sweep.get('cells'), dict):
        raise ExperimentError(
            f'{path} is no sweep: it may state {sorted(SWEEP_KEYS)} (cells '
            f'as a dict), got {unknown or type(sweep.get("cells")).__name__}'
        )
    return sweep


def _sweep_methods(path: Path, sweep: dict, options: str) -> list[Method]:
    common = dict(sweep.get('cfg_options') or {}, **_options(options))
    methods = []
    for label, cell in sweep['cells'].items():
        unknown = sorted(set(cell) - {'config', 'cfg_options'})
        if unknown or 'config' not in cell:
            raise ExperimentError(
                f'{path}: cell {label!r} must state config, and may state '
                f'cfg_options, got {sorted(cell)}'
            )
        config = path.parent / cell['config']
        if not config.is_file():
            try:
                config = _found(cell['config'])
            except ExperimentError as error:
                raise ExperimentError(
                    f'{path}: no {config} for cell {label!r}, and {error}'
                ) from error
        own = cell.get('cfg_options') or {}
        methods.append(Method(str(label), config, dict(common, **own)))
    return methods


def _options(text: str) -> dict:
    """``a=1,b=[2,3]`` to a dict; what is no Python literal is a string."""
    parts, depth = [''], 0
    for character in text:
        depth += (character in '([{') - (character in ')]}')
        if character == ',' and not depth:
            parts.append('')
        else:
            parts[-1] += character
    options = {}
    for part in filter(None, parts):
        key, equals, value = part.partition('=')
        if not equals:
            raise ExperimentError(
                f'{part!r} in the options {text!r} is no KEY=VALUE'
            )
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


def _check_labels(methods: list[Method]) -> None:
    seen = {}
    for method in methods:
        if not LABEL.fullmatch(method.label):
            raise ExperimentError(
                f'label {method.label!r} names a folder: use letters, '
                "digits and ._+-, and neither '.' nor '..'"
            )
        if method.label in seen:
            raise ExperimentError(
                f'two methods are labelled {method.label!r}: '
                f'{seen[method.label]} and {method.config}; write '
                f'LABEL={method.config}'
            )
        seen[method.label] = method.config
