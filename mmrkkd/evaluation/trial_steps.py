"""Some training steps of a distiller, without a runner."""

import contextlib
import copy
import ctypes
import gc
import itertools
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from torch import nn

from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.terms import level_means

REPEATS = 3


class Cost(NamedTuple):
    """What a step takes, forward and backward, without the optimizer.

    Args:
        seconds: Median.
        megabytes: Peak beyond what was in use before; None if it cannot be
            known.
    """

    seconds: float
    megabytes: float | None


def training_batches(config: Config, count: int) -> tuple[object, list[dict]]:
    """The training set and its first batches of seed 0, made in this process.

    Args:
        config: A whole config.
        count: How many batches, fewer where there are not as many.
    """
    loader = in_this_process(config.train_dataloader)
    loader = Runner.build_dataloader(loader, seed=0)
    return loader.dataset, list(itertools.islice(loader, count))


def in_this_process(loader: dict) -> dict:
    """A data loader's config without workers: for a few batches."""
    loader = copy.deepcopy(loader)
    loader.update(num_workers=0, persistent_workers=False)
    for key in ('prefetch_factor', 'timeout'):
        loader.pop(key, None)
    return loader


@contextlib.contextmanager
def as_in_training(
    dataset: object, epoch: int = 0, iteration: int = 0
) -> Iterator[None]:
    """What a training loop tells the models at a step.

    Args:
        dataset: The training set.
        epoch: Those that are done. Defaults to 0, as at the first step.
        iteration: Those that are done. Defaults to 0.
    """
    told = dict(
        loop_stage='train',
        dataset_meta=getattr(dataset, 'metainfo', None),
        epoch=epoch,
        iter=iteration,
    )
    hub = MessageHub.get_current_instance()
    before = dict(hub.runtime_info)
    hub.update_info_dict(told)
    try:
        yield
    finally:
        hub.runtime_info.clear()
        hub.runtime_info.update(before)


@torch.no_grad()
def mean_terms(
    model: LogitDistiller, batches: Sequence[dict]
) -> dict[str, float]:
    """Losses and telemetry of training steps, as means over the batches.

    Args:
        model: Put into training mode; the running means of its batch norms
            change.
        batches: At least one.
    """
    model.train()
    sums = {}
    for batch in batches:
        data = model.data_preprocessor(copy.deepcopy(batch), True)
        for key, value in model(**data, mode='loss').items():
            total = sum(map(float, level_means(value)))
            sums[key] = sums.get(key, 0.0) + total / len(batches)
    return sums


def step_costs(model: LogitDistiller, batch: dict) -> tuple[Cost, Cost]:
    """What a step takes of the student alone, and of the distillation.

    Each in turn, so that whatever else the machine does meets both.

    Args:
        model: Put into training mode; it gets gradients, which are removed.
        batch: One, as the data loader gives it.
    """
    model.train()
    steps = (model.student, model)
    times, peaks = ([], []), ([], [])
    for turn in range(REPEATS + 1):
        for index, module in enumerate(steps):
            data = model.data_preprocessor(copy.deepcopy(batch), True)
            seconds, peak = _measured(model, module, data)
            # The first one sets things up.
            if turn:
                times[index].append(seconds)
                peaks[index].append(peak)
    return tuple(
        Cost(
            statistics.median(times[index]),
            None if None in peaks[index] else max(peaks[index]),
        )
        for index in range(2)
    )


def _measured(
    model: LogitDistiller, module: nn.Module, data: dict
) -> tuple[float, float | None]:
    before = _start_of_peak()
    start = time.perf_counter()
    views = data['inputs']
    if module is model or not isinstance(views, (list, tuple)):
        views = [views]
    for view in views:
        losses = module(view, data['data_samples'], mode='loss')
        model.student.parse_losses(losses)[0].backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = None if before is None else max(_peak() - before, 0.0)
    model.zero_grad(set_to_none=True)
    return seconds, peak


def _start_of_peak() -> float | None:
    """Megabytes in use, from which the peak is counted anew."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    # What was freed goes back to the system, or the next peak hides in it.
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
    try:
        # The kernel's own high-water mark (Linux), from now on.
        Path('/proc/self/clear_refs').write_text('5')
        return _resident('VmRSS')
    except OSError:
        return None


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return _resident('VmHWM')


def _resident(field: str) -> float:
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{field}:\s+(\d+)', status).group(1)) / 1024
