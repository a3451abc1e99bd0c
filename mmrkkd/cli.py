"""What the command-line tools share: their options and their config."""

import argparse
import copy
import os
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
STRATEGIES = dict(
    strategy=('SingleDeviceStrategy', 'DDPStrategy'),
    model_wrapper_cfg=('MMDistributedDataParallel',),
)
EVALUATORS = ('val_evaluator', 'test_evaluator')


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that every tool driven by a config has."""
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints; '
        'work_dirs/<name of the config> by default',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='settings to change in the config, e.g. '
        'optim_wrapper.optimizer.lr=0.02 or "scales=[(1333,800)]"; '
        'data_root=PATH moves every data set of the config',
    )
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
    path = Path(args.config)
    if not path.is_file():
        raise FileNotFoundError(
            f'config {args.config!r} does not exist '
            f'(looked for {path.absolute()})'
        )
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = Config.fromfile(path)
    old_root = config.get('data_root')
    config.merge_from_dict(args.cfg_options)
    if 'data_root' in args.cfg_options and old_root:
        move_data_root(config, old_root, config.data_root)
    config.launcher = args.launcher
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / path.stem)
    return config


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

    for name in (*LOADERS, *EVALUATORS):
        if config.get(name) is not None:
            config[name] = moved(config[name])


def check_data(config: Config, loaders: tuple[str, ...] = LOADERS) -> None:
    """Says which file or folder is missing before anything is built.

    Args:
        config: A config whose data sets name ``data_root``, ``ann_file`` or
            both; others, and those that may download, are passed over.
            ``data_source`` says where to get the data.
        loaders: The data loaders that will be used.

    Raises:
        FileNotFoundError: a local annotation file, or the folder of a data
            set without one, is not there.
    """
    datasets = {name: _dataset(config, name) for name in loaders}
    downloading = [
        dataset.get('data_root')
        for dataset in datasets.values()
        if dataset.get('download')
    ]
    source = config.get('data_source')
    for name, dataset in datasets.items():
        root = dataset.get('data_root') or ''
        ann_file = dataset.get('ann_file') or ''
        if not isinstance(ann_file, str) or root in downloading:
            continue
        path = os.path.join(root, ann_file)
        if path and '://' not in path and not os.path.exists(path):
            kind = 'annotation file' if ann_file else 'folder'
            raise FileNotFoundError(
                f'{name}: no {kind} {os.path.abspath(path)}. The '
                f'config expects its data under data_root={root!r}; give '
                'the place of yours with --cfg-options data_root=PATH'
                + (f'. To get them: {source}' if source else '')
            )


def _dataset(config: Config, loader: str) -> dict:
    """The innermost data set of a loader; {} if there is none."""
    dataset = (config.get(loader) or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def refuse_strategies(config: Config) -> None:
    """Refuses parallel strategies under which a distiller does not work.

    Args:
        config: A whole config; models without a student are passed over.

    Raises:
        ValueError: ``strategy`` or ``model_wrapper_cfg`` is not MMEngine's
            plain or data parallel one.
    """
    if 'student' not in config.model:
        return
    for name, known in STRATEGIES.items():
        kind = (config.get(name) or {}).get('type', known[-1])
        kind = getattr(kind, '__name__', kind)
        if kind.split('.')[-1] not in known:
            raise ValueError(
                f'{name}.type={kind!r} cannot train a distiller: its teacher '
                'stands outside of the module tree and its checkpoint is the '
                "plain student's. Use MMDistributedDataParallel, the default "
                'of --launcher (docs/en/robust_runs.md)'
            )


def model_config(config: Config) -> ConfigDict:
    """The model of a config, with the preprocessor that stands beside it.

    Args:
        config: A whole config; not changed.

    Returns:
        What MMEngine's runner would build.
    """
    model = copy.deepcopy(config.model)
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    return model
