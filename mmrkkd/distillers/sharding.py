"""Parallel strategies that split a model cannot train a distiller."""

from torch import nn


def refuse_sharding(model: nn.Module) -> None:
    """Stops the first step of a distiller that FSDP has wrapped.

    Its steps would run, and its first checkpoint fail: FSDP looks for the
    names of the module tree in a state dict with the plain student's, and
    moves no teacher that stands outside of the tree to the GPU.

    Raises:
        NotImplementedError: it is wrapped.
    """
    # Wrapping leaves this mark on every module that it manages.
    if getattr(model, '_is_fsdp_managed_module', False):
        raise NotImplementedError(
            f'{type(model).__name__} cannot be trained by FSDP '
            '(MMFullyShardedDataParallel, FSDPStrategy): its checkpoint is '
            "the plain student's, whose names FSDP does not know, and its "
            'teacher stands outside of the module tree. Use '
            'MMDistributedDataParallel, the default of --launcher, and '
            'AmpOptimWrapper if memory is short'
        )
