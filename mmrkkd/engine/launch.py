"""Parallel runs: the wrapper of a model, processes without a GPU."""

import atexit
import contextlib
import os
import time
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.model import is_model_wrapper
from torch import distributed, nn

from mmrkkd.checkpoint.locks import hold_folder, let_go

WRAPPER = 'MMDistributedDataParallel'
# Where each launcher tells a process its number.
RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')
# Seconds: gloo's threads want the interpreter for a moment only.
SETTLED_AFTER = 0.5


def unwrapped(model: nn.Module) -> nn.Module:
    """A runner's model without its parallel wrapper."""
    return model.module if is_model_wrapper(model) else model


def named(config: Config, filename: str | os.PathLike) -> Config:
    """The same config under another file name, which runs are named by.

    Args:
        config: Changed in place; MMEngine has no public way to.
        filename: Its file, which need not exist.
    """
    vars(config)['_filename'] = os.fspath(filename)
    return config


def is_first(launcher: str | None) -> bool:
    """Whether this is the process that writes; they need not be joined.

    Args:
        launcher: Of the config; None as 'none'.
    """
    return os.environ.get(RANKS.get(launcher, ''), '0') == '0'


@contextlib.contextmanager
def training_in(config: Config) -> Iterator[None]:
    """Keeps other trainings out of a work directory while the block lasts.

    Args:
        config: The whole config, with ``work_dir`` and ``launcher``.

    Raises:
        FileExistsError: another process trains there.
    """
    if not is_first(config.get('launcher')):
        yield
        return
    hold_folder(config.work_dir)
    try:
        yield
    finally:
        let_go(config.work_dir)


def join_processes(config: Config) -> None:
    """Joins the processes of ``torchrun`` where there is no GPU.

    MMEngine gives every process a GPU, and fails without one. On such a
    machine the processes are joined by gloo here, and the model is wrapped
    without a device. With a GPU, another launcher or a single process,
    nothing is done: MMEngine does it.

    A thread of gloo lets go of the last message a moment after it is there,
    which takes the interpreter: one that ends at that moment aborts
    ("terminate called without an active exception", exit code -6), and
    ``torchrun`` calls a run failed that has done all its work. So such a
    process waits half a second before it ends.

    Args:
        config: A whole config with ``launcher``; changed in place.
    """
    if config.get('launcher') != 'pytorch' or torch.cuda.is_available():
        return
    if not is_distributed():
        distributed.init_process_group('gloo')
        atexit.register(time.sleep, SETTLED_AFTER)
    wrapper = dict(config.get('model_wrapper_cfg') or {})
    wrapper.setdefault('type', WRAPPER)
    wrapper['device_ids'] = None
    # What MMEngine's runner sets for a config without a wrapper.
    wrapper.setdefault('broadcast_buffers', False)
    wrapper.setdefault(
        'find_unused_parameters', config.get('find_unused_parameters', False)
    )
    config.model_wrapper_cfg = wrapper


def refuse_unjoined(launcher: str | None) -> None:
    """Refuses processes of ``torchrun`` that would each train alone.

    Args:
        launcher: Of the config; None as 'none'.

    Raises:
        ValueError: they would write over each other's files.
    """
    if 'TORCHELASTIC_RUN_ID' not in os.environ or is_distributed():
        return
    number = int(os.environ.get('WORLD_SIZE', 1))
    if number > 1 and launcher in (None, 'none'):
        raise ValueError(
            f"launcher must be 'pytorch' in the {number} processes that "
            f'torchrun has started, got {launcher!r}: each would train '
            "alone, into the others' files; give --launcher pytorch"
        )
