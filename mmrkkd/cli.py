"""What the command-line tools share: their options and their config."""

import argparse
import logging
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from mmrkkd.datasets import inner_datasets
from mmrkkd.engine.launch import named
from mmrkkd.shipped import shipped

WITH_PATHS = ('_dataloader', '_evaluator')
# How alike two names are that one may stand for the other, of 1.
ALMOST = 0.85
# A space inside of a text, not beside a comma or a bracket.
SPACE = re.compile(r'(?<![\s,(\[]) (?![\s,)\]])')
# Where a dict begins in the text of a value.
A_DICT = re.compile(r"""\bdict\(|\{\s*['"]""")


class Settings(DictAction):
    """MMEngine's reading of KEY=VALUE, which says what it cannot read.

    It takes ``dict(type='X')`` for a string, one with a comma in it without
    end, and it drops every space: ``'before backbone.relu'``, a folder's.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Reads the settings; ends the program at one without sense."""
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, sign, value = text.partition('=')
            if not key or not sign:
                parser.error(f'{option_string} takes KEY=VALUE, got {text!r}')
            if A_DICT.search(value):
                parser.error(
                    f'{option_string} {key}: a dict cannot be given on the '
                    f'command line, got {value}. Write a config that '
                    f"inherits, _base_ = 'CONFIG', with {key} in it, and run "
                    'that; an entry of a dict that is there can be set: '
                    'optim_wrapper.optimizer.lr=0.02'
                )
            try:
                options[key] = _spaced(
                    self._parse_iterable(SPACE.sub('\0', value))
                )
            except (AssertionError, RecursionError):
                parser.error(
                    f'{option_string} {key}: a value is a number, a text, or '
                    'a list or tuple of these with its brackets closed, '
                    f'"[(1333,800),(640,480)]", got {value}'
                )
        setattr(namespace, self.dest, options)


def _spaced(value: object) -> object:
    """Gives a value that was read its spaces back."""
    if isinstance(value, (list, tuple)):
        return type(value)(_spaced(each) for each in value)
    return value.replace('\0', ' ') if isinstance(value, str) else value


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that every tool driven by a config has."""
    parser.add_argument('config', help='path or name of the config')
    add_run_options(parser)


def add_run_options(
    parser: argparse.ArgumentParser, folder: str = '<name of the config>'
) -> None:
    """Adds those of them that are about the run.

    Args:
        parser: The parser.
        folder: What the work directory is called by default. Defaults to
            the name of the config.
    """
    parser.add_argument(
        '--work-dir',
        help=f'folder for logs and checkpoints; work_dirs/{folder} by default',
    )
    add_change_option(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run were started',
    )
    # torchrun states the rank in the environment, its predecessor here.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS,
    )


def add_change_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that changes settings of the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Settings,
        default={},
        metavar='KEY=VALUE',
        help='settings to change in the config, e.g. '
        'optim_wrapper.optimizer.lr=0.02 or "scales=[(1333,800)]"; '
        'data_root=PATH moves every data set of the config',
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option of the tools that read a checkpoint."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read a checkpoint that holds more than a training state, '
        'which can run code of its author',
    )


def read_config(args: argparse.Namespace) -> Config:
    """Reads the config with the options of :func:`add_config_options`.

    Args:
        args: The parsed options.

    Returns:
        The config, with ``launcher`` and ``work_dir`` set.

    Raises:
        FileNotFoundError: there is no such config.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = load_config(args.config)
    change_config(config, args.cfg_options)
    config.launcher = args.launcher
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return config


def load_config(name: str | os.PathLike) -> Config:
    """Reads a config by its path or its name.

    Args:
        name: The path of a file; one of an installed package, such as
            'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'; or one of
            the configs that come with mmrkkd, 'configs/...'.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: it is no config that can be read, or the name before
            '::' is of no package known to MMEngine.
    """
    path = find_config(name)
    try:
        if '::' not in path:
            return Config.fromfile(path)
        # Inheritance is MMEngine's public way to one of another package.
        config = Config.fromstring(f'_base_ = {path!r}', '.py')
    except (SyntaxError, AssertionError) as error:
        raise ValueError(
            f'config {os.fspath(name)!r} cannot be read: {error}'
        ) from error
    # Not the temporary file that this made.
    return named(config, Path(path).name)


def find_config(name: str | os.PathLike) -> str:
    """Where a config lies: its absolute path, or the name of a package's.

    Args:
        name: See :func:`load_config`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    name = os.fspath(name)
    if '::' in name:
        return name
    path = Path(name).expanduser()
    places = [path] if path.is_absolute() else [path, shipped(name)]
    for place in places:
        if place.is_file():
            return str(place.absolute())
    also = f' and {places[1]}' if places[1:] else ''
    raise FileNotFoundError(
        f'config {name!r} does not exist (looked for {path.absolute()}{also})'
        '; give the path of a file, or a name such as '
        "'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'"
    )


def change_config(config: Config, options: dict) -> None:
    """Changes settings as ``--cfg-options`` says.

    A name that the config does not have, and that is almost one of its own,
    is told: it is added, which may change nothing.

    Args:
        config: Changed in place.
        options: Dotted name to value; ``data_root`` moves every data set.

    Raises:
        ValueError: it would move data sets that lie in several places.
    """
    _tell_of_typos(config, options)
    old_root = config.get('data_root')
    if 'data_root' in options and not old_root:
        old_root = _only_root(config)
    config.merge_from_dict(options)
    if 'data_root' in options and old_root:
        move_data_root(config, old_root, config.data_root)


def _tell_of_typos(config: Config, options: dict) -> None:
    for option in options:
        node = dict(config.items())
        for name in option.split('.'):
            if not isinstance(node, dict):
                break
            if name not in node and not name.startswith('tta_'):
                # Letters that changed places, or one that is another.
                known = [str(key) for key in node]
                near = [key for key in known if sorted(key) == sorted(name)]
                near += get_close_matches(name, known, 1, ALMOST)
                if near:
                    print_log(
                        f'--cfg-options {option}: the config has no {name!r} '
                        f'there; did you mean {near[0]!r}?',
                        logger='current',
                        level=logging.WARNING,
                    )
                break
            node = node[name]


def _only_root(config: Config) -> str | None:
    """The data root of all data sets, where a config has no own.

    Raises:
        ValueError: they have several.
    """
    roots = {
        dataset['data_root']
        for name, loader in config.items()
        if name.endswith('_dataloader') and isinstance(loader, dict)
        for dataset in inner_datasets(loader.get('dataset'))
        if dataset.get('data_root')
    }
    if len(roots) > 1:
        raise ValueError(
            'data_root moves all data sets together, and those of the config '
            f'lie in {" and ".join(sorted(roots))}: set '
            'train_dataloader.dataset.data_root and its like one by one'
        )
    return next(iter(roots), None)


def move_data_root(config: Config, old: str, new: str) -> None:
    """Replaces the data root in every data loader and evaluator.

    A config computes its paths from ``data_root`` while it is read, so
    changing that one entry afterwards would change nothing.

    Args:
        config: Changed in place.
        old: The root that the paths were made from.
        new: The root to put in its place.
    """
    old = os.path.join(old, '')
    new = os.path.join(new, '')

    def moved(value: object) -> object:
        if isinstance(value, str):
            if value.startswith(old):
                return new + value[len(old) :]
            return new if value == old[:-1] else value
        if isinstance(value, dict):
            for key in value:
                value[key] = moved(value[key])
        elif isinstance(value, (list, tuple)):
            return type(value)(moved(item) for item in value)
        return value

    for name in list(config):
        if name.endswith(WITH_PATHS):
            config[name] = moved(config[name])
