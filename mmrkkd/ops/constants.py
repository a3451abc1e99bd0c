"""Constants on a device, sent there once.

A tensor made from Python numbers is copied to a GPU, and the step waits for
the copy.
"""

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=64)
def constant(values: tuple, device: torch.device) -> Tensor:
    """Numbers as a tensor; the same one at every call. Do not write to it.

    Args:
        values: Integers (int64) or flags (bool).
        device: Where to.
    """
    # Whoever asks first may be evaluating: the tensor outlives that.
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)
