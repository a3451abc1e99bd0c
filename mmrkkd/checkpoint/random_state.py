"""The random state of a process, as plain values for a checkpoint."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def random_state() -> dict:
    """The state of the generators of torch, NumPy and Python.

    Returns:
        ``torch`` and, where a GPU is in use, ``cuda`` (that of the current
        device): bytes as tensors; ``numpy`` and ``python``: numbers. All of
        it can be read back without running code.
    """
    name, keys, *rest = np.random.get_state()
    state = dict(
        torch=torch.get_rng_state(),
        numpy=[name, torch.from_numpy(keys.astype(np.int64)), *rest],
        python=random.getstate(),
    )
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Puts the generators where :func:`random_state` found them.

    Args:
        state: What it returned; its tensors may be on any device.
    """
    torch.set_rng_state(state['torch'].cpu())
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leaves all generators as they were, whatever happens inside."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


@contextmanager
def cpu_random_state_kept() -> Iterator[None]:
    """Leaves the CPU's generators as they were, whatever happens inside.

    For what draws on the CPU alone: a GPU is not asked.
    """
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def seed_all(seed: int) -> None:
    """Starts all generators from a number.

    Args:
        seed: Any whole number.
    """
    seed %= 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
