"""What is wrong with the data of a config, told before anything is built."""

import inspect
import os
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import DATASETS

from .coco_annotations import check_annotations, is_coco

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# What MMEngine and MMCV call the disk of this machine.
LOCAL = (None, 'local', 'disk')
BACKENDS = ('backend_args', 'file_client_args')


def inner_datasets(dataset: object) -> Iterator[dict]:
    """The data sets inside of wrappers such as RepeatDataset, ConcatDataset.

    Args:
        dataset: The config of one, or several; what is already built is
            passed over.
    """
    if isinstance(dataset, (list, tuple)):
        for item in dataset:
            yield from inner_datasets(item)
    elif isinstance(dataset, dict):
        inside = [
            dataset[key]
            for key in ('dataset', 'datasets')
            if isinstance(dataset.get(key), (dict, list, tuple))
        ]
        if inside:
            yield from inner_datasets(inside)
        else:
            yield dataset


def dataset_class(dataset: dict, scope: str | None) -> type | None:
    """The class of a data set.

    Args:
        dataset: Its config.
        scope: The config's default scope.

    Returns:
        None where it is not known.
    """
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    return kind if inspect.isclass(kind) else None


def check_data(config: Config, loaders: tuple[str, ...] = LOADERS) -> None:
    """Says which data are missing or broken before anything is built.

    Annotation files in COCO's format are compared with the classes of their
    data sets, see :func:`.coco_annotations.check_annotations`.

    Args:
        config: A config whose data sets name ``data_root``, ``ann_file`` or
            both; others, those behind a storage backend and those that may
            download are passed over. ``data_source`` says where to get the
            data.
        loaders: The data loaders that will be used.

    Raises:
        FileNotFoundError: a local annotation file, or the folder of a data
            set without one, is not there.
        TypeError: the storage backend of a data set is no dict.
        ValueError: an annotation file is broken, or has none of the classes.
    """
    datasets = [
        (name, dataset)
        for name in loaders
        if isinstance(config.get(name), dict)
        for dataset in inner_datasets(config[name].get('dataset'))
    ]
    _refuse_missing(config, datasets)
    for _, dataset in datasets:
        _check_content(dataset, config.get('default_scope'))


def _check_content(dataset: dict, scope: str | None) -> None:
    """Checks the annotation file of a data set like COCO."""
    kind = dataset_class(dataset, scope)
    if kind is None or not is_coco(kind) or _is_stored_elsewhere(dataset):
        return
    classes = kind._load_metainfo(dataset.get('metainfo')).get('classes')
    # A single name without its comma is refused by the model.
    if not isinstance(classes, (list, tuple)):
        return
    for path in _annotation_files(dataset):
        if path.endswith('.json') and os.path.isfile(path):
            check_annotations(path, tuple(classes))


def _refuse_missing(config: Config, datasets: list[tuple[str, dict]]) -> None:
    """Says which file or folder is not there."""
    missing = [
        (name, dataset.get('data_root') or '', *needed)
        for name, dataset in datasets
        for needed in _needed(dataset)
        if not (_exists(needed[1]) or _is_stored_elsewhere(dataset))
    ]
    if not missing:
        return
    scope = config.get('default_scope')
    downloading = {
        dataset.get('data_root')
        for _, dataset in datasets
        if _downloads(dataset, scope)
    }
    source = config.get('data_source')
    for name, root, kind, path in missing:
        if root not in downloading:
            raise FileNotFoundError(
                f'{name}: no {kind} {os.path.abspath(path)}. The '
                f'config expects its data under data_root={root!r}; give '
                'the place of yours with --cfg-options data_root=PATH'
                + (f'. To get them: {source}' if source else '')
            )


def _needed(dataset: dict) -> Iterator[tuple[str, str]]:
    """What a data set reads when it is built: kind and path."""
    for path in _annotation_files(dataset):
        yield 'annotation file', path
    if not dataset.get('ann_file'):
        # An absolute prefix takes the place of the root.
        prefix = dataset.get('data_prefix')
        if isinstance(prefix, dict):
            prefix = prefix.get('img_path') or prefix.get('img')
        prefix = _path(prefix)
        is_absolute = os.path.isabs(prefix) or '://' in prefix
        root = _path(dataset.get('data_root'))
        yield 'folder', prefix if is_absolute else root


def _annotation_files(dataset: dict) -> Iterator[str]:
    root = _path(dataset.get('data_root'))
    files = dataset.get('ann_file') or ()
    if not isinstance(files, (list, tuple)):
        files = [files]
    for file in map(_path, files):
        if file:
            yield os.path.join(root, file)


def _path(value: object) -> str:
    """A path as text; '' for what is none, and is not looked for."""
    return os.fspath(value) if isinstance(value, (str, os.PathLike)) else ''


def _exists(path: str) -> bool:
    return (
        not path or '://' in path or os.path.exists(os.path.expanduser(path))
    )


def _is_stored_elsewhere(value: object) -> bool:
    """Whether a data set, or a step of its pipeline, has a storage backend."""
    if isinstance(value, dict):
        return any(_is_remote(key, value.get(key)) for key in BACKENDS) or any(
            _is_stored_elsewhere(item) for item in value.values()
        )
    if isinstance(value, (list, tuple)):
        return any(_is_stored_elsewhere(item) for item in value)
    return False


def _is_remote(argument: str, backend: object) -> bool:
    if not backend:
        return False
    if not isinstance(backend, dict):
        raise TypeError(
            f'{argument} of a data set or of a step of its pipeline must be a '
            f"dict such as dict(backend='petrel'), got {backend!r}"
        )
    return backend.get('backend') not in LOCAL


def _downloads(dataset: dict, scope: str | None) -> bool:
    """Whether a data set may fetch its data, by option or by default."""
    if 'download' in dataset:
        return bool(dataset['download'])
    kind = dataset_class(dataset, scope)
    if kind is None:
        return False
    option = inspect.signature(kind).parameters.get('download')
    return option is not None and option.default is True
