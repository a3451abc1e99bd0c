"""Which precision a device is fast at."""

import functools
from pathlib import Path

import torch

CPU_INFO = Path('/proc/cpuinfo')
# Without these a CPU emulates bfloat16, slower than float32.
BFLOAT16_FLAGS = frozenset({'avx512_bf16', 'amx_bf16'})


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the hardware multiplies it at speed, else None.

    CUDA devices from compute capability 8.0 on, and CPUs with AVX512_BF16
    or AMX. float16 is never chosen: what one batch does not overflow,
    another one may.

    Args:
        device: Where the teacher is.
    """
    if device.type == 'cuda':
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == 'cpu' and bool(_cpu_flags() & BFLOAT16_FLAGS)
    return torch.bfloat16 if fast else None


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """What Linux says of the processor; nothing on other systems."""
    if not CPU_INFO.is_file():
        return frozenset()
    for line in CPU_INFO.read_text().splitlines():
        name, _, value = line.partition(':')
        if name.strip() == 'flags':
            return frozenset(value.split())
    return frozenset()
