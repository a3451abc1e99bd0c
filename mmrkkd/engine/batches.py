"""What to tell and to keep of a batch of data."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor


def image_names(batch: object) -> list[str]:
    """The images of a batch: paths, or their numbers in the data set.

    Args:
        batch: What a data loader gives, with ``data_samples``.
    """
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    names = []
    for sample in _flat(samples):
        for key in ('img_path', 'img_id', 'sample_idx'):
            value = getattr(sample, key, None)
            if value is not None:
                names.append(
                    str(value) if key == 'img_path' else f'{key} {value}'
                )
                break
    return list(dict.fromkeys(names))


def _flat(samples: object) -> list:
    if isinstance(samples, (list, tuple)):
        return [one for sample in samples for one in _flat(sample)]
    return [] if samples is None else [samples]


def plain_values(value: object) -> object:
    """A batch as tensors, containers, numbers and text.

    So it can be read back without running code.

    Args:
        value: What a data loader gives.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, BaseDataElement):
        return {
            name.lstrip('_'): plain_values(item)
            for name, item in value.all_items()
        }
    if isinstance(value, dict):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain_values(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    tensor = getattr(value, 'tensor', None)
    if isinstance(tensor, Tensor):
        # Boxes of MMDetection.
        return plain_values(tensor)
    return str(value)
