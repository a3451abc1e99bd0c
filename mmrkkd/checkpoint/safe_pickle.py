"""Reading a pickle without running it.

Allowed are tensors, plain containers, numbers and NumPy arrays. Objects of
MMEngine's (log histories, methods of schedulers) are read as empty ones;
anything else is refused unless the caller says that the file is trusted.
"""

import _codecs
import collections
import errno
import os
import pickle
import re
import struct
import types
import zipfile

import numpy as np
import torch
from mmengine.utils import digit_version

HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
# What torch raises for a file that is cut off or overwritten.
DAMAGE = (
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    struct.error,
)
# How the unpicklers of torch and Python put it that a pickle breaks off, or
# never was one: trust would not help.
NO_PICKLE = re.compile(
    'Unsupported operand|invalid load key|truncated|MARK|underflow'
)
# Reading a file by running what is in it: never said without its danger.
TORCHS_ADVICE = re.compile(r'In PyTorch 2\.6|Re-running|Please file an issue')


def unpickle(
    path: str | os.PathLike,
    trust: bool = False,
    map_location: object = 'cpu',
    history: type | None = None,
) -> object:
    """Reads a file of ``torch.save`` without running it.

    Args:
        path: The file.
        trust: Unpickle whatever is in it. Defaults to False.
        map_location: Where its tensors go, as for ``torch.load``.
        history: A subclass of :class:`Inert` that takes the place of
            MMEngine's log histories. Defaults to Inert itself.

    Returns:
        What the file holds, :class:`Inert` in place of the objects of
        MMEngine's that are not needed.

    Raises:
        ValueError: the file holds something else and is not trusted, or is
            damaged.
    """
    try:
        if trust:
            return torch.load(
                path, map_location=map_location, weights_only=False
            )
        return _load(path, map_location, history or Inert)
    except pickle.UnpicklingError as error:
        reason = _reason(error)
        if trust or NO_PICKLE.search(reason):
            raise _damaged(path, reason) from error
        raise ValueError(
            f'checkpoint {path} holds more than weights ({reason}): reading '
            'it could run code, so it was refused. If you trust its author, '
            'set trust_checkpoint=True (of a teacher) or give the tool '
            '--trust-checkpoint'
        ) from error
    except DAMAGE as error:
        raise _damaged(path, _reason(error)) from error
    except OSError as error:
        # A place before the file's begin is looked for where it is short.
        if error.errno != errno.EINVAL:
            raise
        raise _damaged(path, 'it is cut off') from error


def _reason(error: Exception) -> str:
    """What the reader met, without torch's advice."""
    for pattern in (r'(GLOBAL [\w.]+)', r'WeightsUnpickler error:\s*(.+)'):
        found = re.search(pattern, str(error))
        if found:
            return found.group(1)
    met = TORCHS_ADVICE.split(str(error))[0].strip()
    return met.splitlines()[0] if met else type(error).__name__


def _damaged(path: str | os.PathLike, reason: str) -> ValueError:
    return ValueError(
        f'checkpoint {path} cannot be read, it is damaged or no checkpoint: '
        f'{reason}'
    )


class Inert:
    """Stands in for a class of MMEngine's, and does nothing.

    Beside the weights a checkpoint holds log histories and schedulers that
    nobody needs here. The classes of the file are never touched: one of
    them writes what it is given into a dict that all its instances share.
    """

    def __new__(cls, *args: object) -> 'Inert':
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def _inert_getattr(owner: object, name: str) -> Inert:
    """All that a checkpoint may ask of getattr(): methods of the above.

    With the real one a pickle reaches ``__globals__`` and from there any
    function of the process.
    """
    kind = owner if isinstance(owner, type) else type(owner)
    if not issubclass(kind, Inert):
        raise pickle.UnpicklingError(
            f'Unsupported global: GLOBAL builtins.getattr ({name!r})'
        )
    return Inert()


def _load(
    path: str | os.PathLike, map_location: object, history: type[Inert]
) -> object:
    # Before, torch's own safe reader can allow nothing more than weights.
    if digit_version(torch.__version__) < digit_version('2.6'):
        return torch.load(
            path,
            map_location=map_location,
            pickle_module=_restricted_pickle(history),
            weights_only=False,
        )
    allowed = [(kind, name) for name, kind in _allowed(history).items()]
    if zipfile.is_zipfile(path):
        # The format before torch 1.6 cannot be looked into beforehand.
        allowed += [
            (Inert, name)
            for name in torch.serialization.get_unsafe_globals_in_checkpoint(
                path
            )
            if name.startswith('mmengine.') and name != HISTORY
        ]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location=map_location, weights_only=True)


def _allowed(history: type[Inert]) -> dict[str, object]:
    """What MMEngine writes beside the weights: name to what is taken."""
    core = (
        np.core
        if np.lib.NumpyVersion(np.__version__) < '2.0.0'
        else (np._core)
    )
    allowed = {
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
        'builtins.slice': slice,
        'builtins.getattr': _inert_getattr,
        HISTORY: history,
    }
    # NumPy 2 moved the module; a file names it as its writer did.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed[f'{module}._reconstruct'] = core.multiarray._reconstruct
        allowed[f'{module}.scalar'] = core.multiarray.scalar
    for code in '?bBhHiIlLqQefd':
        kind = type(np.dtype(code))
        allowed[f'{kind.__module__}.{kind.__qualname__}'] = kind
    return allowed


def _restricted_pickle(history: type[Inert]) -> types.SimpleNamespace:
    """A ``pickle_module`` for torch.load that knows only what is allowed."""
    allowed = _allowed(history) | {
        'collections.OrderedDict': collections.OrderedDict,
        'collections.Counter': collections.Counter,
        'builtins.set': set,
        '_codecs.encode': _codecs.encode,
        'torch.Size': torch.Size,
        'torch.device': torch.device,
    }
    for name in (
        '_rebuild_tensor',
        '_rebuild_tensor_v2',
        '_rebuild_parameter',
    ):
        allowed[f'torch._utils.{name}'] = getattr(torch._utils, name)
    allowed |= {
        str(value): value
        for value in vars(torch).values()
        if isinstance(value, torch.dtype)
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            # As Python 2 named it, and protocol 2 still does.
            module = module.replace('__builtin__', 'builtins')
            full = f'{module}.{name}'
            if full in allowed:
                return allowed[full]
            if module.split('.')[0] == 'mmengine':
                return Inert
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {full}')

    def load(file: object, **options: object) -> object:
        return Unpickler(file, **options).load()

    return types.SimpleNamespace(
        Unpickler=Unpickler, load=load, __name__='restricted_pickle'
    )
