"""Training states, read for MMEngine without running what is in them."""

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from .fetch import fetch_checkpoint
from .file_formats import read_file
from .safe_pickle import Inert

FILES = ('', 'http://', 'https://')
REFUSED = (r'(\S+\:)?s3://', r'(\S+\:)?petrel://', 'pavi://')


@contextlib.contextmanager
def safe_reader(trust: bool = False) -> Iterator[None]:
    """Has MMEngine read every checkpoint by :func:`read_training_state`.

    Inside of the context this holds for ``--resume``, ``load_from`` and
    ``init_cfg=dict(type='Pretrained', ...)``, in all threads: MMEngine has
    one table of readers for the process. Afterwards it is as before. A URL
    is fetched over https and verified by the digits in its name; names of
    model zoos (``torchvision://resnet18``) are URLs too. Storage that only
    MMEngine can reach (``s3://``, ``petrel://``, ``pavi://``) is refused.

    Args:
        trust: Unpickle whatever is in a file, which can run code of its
            author's. Defaults to False.
    """
    before = dict(CheckpointLoader._schemes)
    use_safe_reader(trust)
    try:
        yield
    finally:
        CheckpointLoader._schemes = before


def use_safe_reader(trust: bool = False) -> None:
    """What :func:`safe_reader` does, for the rest of the process.

    Args:
        trust: See there.
    """
    for prefixes, loader in _loaders(trust).items():
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


def _loaders(trust: bool) -> dict[tuple[str, ...], Callable]:
    # MMEngine logs what follows 'load_from_' in the name of a loader.
    def load_from_safe(filename: str, map_location: object = None) -> dict:
        return read_training_state(filename, map_location, trust)

    def load_from_safe_zoo(filename: str, map_location: object = None) -> dict:
        content = load_from_safe(zoo_location(filename), map_location)
        if filename.startswith('mmcls://'):
            content['state_dict'] = {
                key.removeprefix('backbone.'): value
                for key, value in content['state_dict'].items()
                if key.startswith('backbone.')
            }
        return content

    def load_from_nowhere(filename: str, map_location: object = None) -> None:
        raise ValueError(
            f'checkpoint {filename!r} cannot be read without running what is '
            'in it; download it and give its path, or give the tool '
            '--trust-checkpoint'
        )

    loaders = {FILES: load_from_safe, tuple(_zoos()): load_from_safe_zoo}
    if not trust:
        loaders[REFUSED] = load_from_nowhere
    return loaders


def _zoos() -> dict[str, Callable[[], dict[str, str]]]:
    """Where MMEngine keeps the addresses of its model zoos."""
    own = mmengine_checkpoint
    return {
        'torchvision://': own.get_torchvision_models,
        'modelzoo://': own.get_torchvision_models,
        'open-mmlab://': own.get_external_models,
        'openmmlab://': own.get_external_models,
        'mmcls://': own.get_mmcls_models,
    }


def zoo_location(name: str) -> str:
    """The URL, or the path, behind a name of a model zoo.

    Args:
        name: For example 'torchvision://resnet18'.

    Raises:
        ValueError: the zoo has no such model.
    """
    zoo, model = name.split('://', 1)
    if zoo.replace('-', '') == 'openmmlab':
        renamed = mmengine_checkpoint.get_deprecated_model_names()
        model = renamed.get(model, model)
    locations = _zoos()[f'{zoo}://']()
    if model not in locations:
        raise ValueError(f'there is no model {model!r} in {zoo}://')
    location = locations[model]
    if '://' in location:
        return location.replace('http://', 'https://', 1)
    home = os.getenv('MMENGINE_HOME', '~/.cache/mmengine')
    return str(Path(home).expanduser() / location)


def read_training_state(
    location: str | os.PathLike,
    map_location: object = None,
    trust: bool = False,
) -> dict:
    """Reads a whole checkpoint: weights, optimizer, schedules, log history.

    Nothing in the file is run. Log histories are rebuilt from their
    numbers; the methods that some schedulers keep are left out, so a
    scheduler goes on with its own. ``meta['config']`` is left out: it is
    Python code, which MMEngine would run on a resume.

    Args:
        location: A path or an https URL.
        map_location: Where tensors go, as for ``torch.load``.
        trust: Unpickle whatever is in it. Defaults to False.

    Returns:
        What the file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds anything else, is damaged or is no dict.
    """
    path = fetch_checkpoint(location)
    content = read_file(path, trust, map_location, history=_History)
    if not isinstance(content, dict):
        raise ValueError(
            f'checkpoint {path} holds a {type(content).__name__}, expected a '
            'dict with a state_dict'
        )
    if not trust:
        content = _restored(content, set())
        if isinstance(content.get('meta'), dict):
            content['meta'].pop('config', None)
    return content


class _History(Inert):
    """Stands in for a log history and keeps its numbers, nothing else."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def restored(self) -> HistoryBuffer:
        state = self.state if isinstance(self.state, dict) else {}
        return HistoryBuffer(
            state.get('_log_history', ()),
            state.get('_count_history', ()),
            state.get('max_length', 1_000_000),
        )


def _restored(value: object, seen: set[int]) -> object:
    """Histories rebuilt, whatever else is inert left out; in place."""
    if isinstance(value, _History):
        return value.restored()
    if id(value) in seen:
        return value
    if isinstance(value, dict):
        seen.add(id(value))
        for key in list(value):
            if _is_inert(value[key]):
                del value[key]
            else:
                value[key] = _restored(value[key], seen)
    elif isinstance(value, list):
        seen.add(id(value))
        value[:] = [
            _restored(item, seen) for item in value if not _is_inert(item)
        ]
    elif type(value) is tuple:
        return tuple(
            _restored(item, seen) for item in value if not _is_inert(item)
        )
    return value


def _is_inert(value: object) -> bool:
    if isinstance(value, type):
        return issubclass(value, Inert)
    return isinstance(value, Inert) and not isinstance(value, _History)


def check_intact(path: str | os.PathLike, trust: bool = False) -> dict:
    """Reads a checkpoint that a run wants to go on from, and checks it.

    Args:
        path: The file.
        trust: Unpickle whatever is in it. Defaults to False.

    Returns:
        What it holds, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged (its checksums are verified) or is no
            training state.
    """
    path = fetch_checkpoint(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = _first_damaged(archive)
        if damaged is not None:
            raise ValueError(
                f'checkpoint {path} is damaged: the checksum of {damaged} '
                'does not match'
            )
    content = read_training_state(path, 'cpu', trust)
    meta = content.get('meta')
    missing = [
        f'meta.{key}'
        for key in ('epoch', 'iter')
        if not isinstance(meta, dict) or not isinstance(meta.get(key), int)
    ]
    missing += [
        key
        for key in ('state_dict', 'message_hub')
        if not isinstance(content.get(key), dict)
    ]
    if missing:
        raise ValueError(
            f'checkpoint {path} is no state that a run can go on from: it '
            f'has no {", ".join(missing)}. To start from its weights, set '
            'load_from and leave --resume out'
        )
    return content


def _first_damaged(archive: zipfile.ZipFile) -> str | None:
    # What zlib and zipfile raise where not only the content is damaged.
    try:
        return archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        return f'its archive ({error})'
