"""Weights of a model that is looked at."""

import os

from mmengine.runner import load_checkpoint
from torch import nn


def load_weights(
    model: nn.Module, checkpoint: str | os.PathLike, config: object
) -> dict:
    """Loads a checkpoint that fits entirely.

    Args:
        model: The model to load into.
        checkpoint: Path or URL.
        config: What the model was built by, for the message.

    Returns:
        What the file holds.

    Raises:
        ValueError: weights are missing, unknown or of another shape.
    """
    path = os.fspath(checkpoint)
    try:
        return load_checkpoint(model, path, map_location='cpu', strict=True)
    except RuntimeError as error:
        raise ValueError(
            f'checkpoint {path} does not fit the model of {config}: '
            f'{error!s:.1000}'
        ) from error
