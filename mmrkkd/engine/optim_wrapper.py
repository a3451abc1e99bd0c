"""Mixed precision without loss scaling, on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from mmrkkd.distillers.inference.hardware import fast_dtype
from mmrkkd.ops.checks import check_choice
from mmrkkd.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16.

    MMEngine's ``AmpOptimWrapper`` scales the loss, as float16 needs, and
    refuses to run on a CPU. bfloat16 has the range of float32: nothing is
    scaled. On CPUs with AVX512_BF16 or AMX it about doubles the speed of a
    small network's training; others emulate it, tens of times slower than
    float32. MMCV's NMS takes float32 only on a CPU: two-stage detectors
    need a GPU for this.

    Args:
        dtype: 'auto': bfloat16 where the device multiplies it at speed,
            float32 elsewhere, which the log says. 'bfloat16': everywhere.
            Defaults to 'auto'.
        kwargs: Those of :class:`mmengine.optim.OptimWrapper`.

    Raises:
        ValueError: dtype is neither.
    """

    def __init__(self, *args, dtype: str = 'auto', **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_choice('dtype', dtype, ('auto', 'bfloat16'))
        self.dtype = dtype
        self._fast: bool | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass.

        Args:
            model: The model; its device is the one that casts.
        """
        device = next(model.parameters()).device
        with (
            super().optim_context(model),
            torch.autocast(
                device.type,
                dtype=torch.bfloat16,
                enabled=self._casts(device),
            ),
        ):
            yield

    def _casts(self, device: torch.device) -> bool:
        """Whether to cast; looked up once, and told where it is not done."""
        if self._fast is None:
            self._fast = self.dtype == 'bfloat16' or bool(fast_dtype(device))
            if not self._fast:
                print_log(
                    f'{type(self).__name__} stays in float32: the device '
                    f"({device}) is slow at bfloat16 (dtype='bfloat16' asks "
                    'for it all the same)',
                    logger='current',
                )
        return self._fast
