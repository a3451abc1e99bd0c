"""Counts where a training step would wait for a GPU, on any machine.

A step waits where the host needs a number from the device (``item``, a
branch, ``nonzero``, a boolean index) or sends one there from Python. All
that shows in what is dispatched, whatever the device.
"""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import mmrkkd
from mmrkkd.ops import checks

OURS = str(Path(mmrkkd.__file__).parent)
# Packages whose waits are their own.
OTHERS = ('mmdet', 'mmcv', 'mmpretrain', 'mmengine')
WAITING = {
    '_local_scalar_dense',
    '_unique2',
    'bincount',
    'equal',
    'is_nonzero',
    'lift_fresh',
    'masked_select',
    'nonzero',
    'unique_dim',
}
INDEXING = {'index', 'index_put', 'index_put_', '_index_put_impl_'}
METHODS = {'cpu', 'numpy', 'tolist'}


class Wait(NamedTuple):
    """One wait: which operator, and the line of whoever asked for it."""

    operator: str
    package: str
    line: str


class _Noted:
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def note(self, name):
        self.waits.append(Wait(name, *_caller()))


class _Dispatched(_Noted, TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in WAITING or (name in INDEXING and _is_boolean(args[1])):
            self.note(name)
        return function(*args, **(kwargs or {}))


class _Called(_Noted, TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, '__name__', '')
        if name in METHODS and args and isinstance(args[0], torch.Tensor):
            self.note(name)
        return function(*args, **(kwargs or {}))


def _is_boolean(indices):
    kinds = torch.bool, torch.uint8
    return any(each is not None and each.dtype in kinds for each in indices)


def _caller():
    """The innermost package of ours or of OpenMMLab, and the line there."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(OURS):
            return 'mmrkkd', f'{path[len(OURS) + 1 :]}:{frame.f_lineno}'
        for name in OTHERS:
            if f'/{name}/' in path:
                return name, f'{path}:{frame.f_lineno}'
        frame = frame.f_back
    return 'none', ''


@contextmanager
def waits():
    """Inside the block values are not looked at as they are on the CPU.

    Returns:
        A context manager; its value is the list of waits so far.
    """
    noted, at_hand = [], checks.at_hand
    checks.at_hand = lambda values: False
    try:
        with _Called(noted), _Dispatched(noted):
            yield noted
    finally:
        checks.at_hand = at_hand


def ours(noted):
    """Those that our code asks for, and those of a backward pass."""
    return [wait for wait in noted if wait.package in ('mmrkkd', 'none')]
