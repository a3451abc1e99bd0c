"""Samples that know which they are, and which are of other classes."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from torch.utils.data import Dataset

from mmrkkd.registry import DATASETS


@DATASETS.register_module()
class ContrastiveDataset(Dataset):
    """A data set whose samples say their index and have negatives.

    Each sample gets ``data_index`` and ``data_count`` in its metainfo, its
    place in this data set and the size of that, and the field ``negatives``,
    (K,) int64: places of samples of other classes, drawn without
    replacement where there are as many, as the released code of CRD does in
    its 'exact' mode. The draws are NumPy's, which the data loader's workers
    seed.

    Args:
        dataset: Config of a data set whose samples have one class each, or
            the data set.
        negatives: K >= 1. Defaults to 16384, CRD's.

    Raises:
        TypeError: the data set does not tell its labels.
        ValueError: K is no number >= 1, or there are not two classes.
    """

    def __init__(
        self, dataset: dict | Dataset, negatives: int = 16384
    ) -> None:
        if not isinstance(negatives, int) or negatives < 1:
            raise ValueError(
                f'negatives must be an integer >= 1, got {negatives!r}'
            )
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        self.dataset, self.negatives = dataset, negatives
        self.metainfo = getattr(dataset, 'metainfo', {})
        self.labels: np.ndarray | None = None
        self.full_init()

    def full_init(self) -> None:
        """Loads the inner data set, and groups its samples by class."""
        if self.labels is not None:
            return
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()
        self.labels = _labels(self.dataset)
        # Places sorted by class, and where each class begins and ends.
        self.order = np.argsort(self.labels, kind='stable')
        ordered = self.labels[self.order]
        self.begins = np.searchsorted(ordered, self.labels, 'left')
        self.ends = np.searchsorted(ordered, self.labels, 'right')
        if len(np.unique(self.labels)) < 2:
            raise ValueError(
                'negatives are samples of other classes, and the '
                f'{len(self.labels)} samples of the data set have '
                f'{len(np.unique(self.labels))} class(es)'
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        item = self.dataset[index]
        sample = item['data_samples']
        sample.set_metainfo(dict(data_index=index, data_count=len(self)))
        sample.set_field(
            torch.from_numpy(self.draw(index)),
            'negatives',
            dtype=torch.Tensor,
        )
        return item

    def draw(self, index: int) -> np.ndarray:
        """Places of samples of other classes than this one's, (K,)."""
        begin, end = self.begins[index], self.ends[index]
        others = len(self.order) - (end - begin)
        # NumPy's legacy generator would shuffle all places for every sample.
        generator = np.random.default_rng(np.random.randint(2**31))
        drawn = generator.choice(
            others, self.negatives, replace=self.negatives > others
        )
        return self.order[drawn + (end - begin) * (drawn >= begin)]


def _labels(dataset: Dataset) -> np.ndarray:
    """The class of each sample, (n,)."""
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([_labels(part) for part in dataset.datasets])
    if isinstance(dataset, RepeatDataset):
        return np.tile(_labels(dataset.dataset), dataset.times)
    labels = getattr(dataset, 'get_gt_labels', lambda: None)()
    if not isinstance(labels, (Sequence, np.ndarray)) or np.ndim(labels) != 1:
        raise TypeError(
            'ContrastiveDataset asks the data set for the class of each '
            'sample, get_gt_labels(), as those of MMPretrain have it; '
            f'{type(dataset).__name__} has none'
        )
    return np.asarray(labels, dtype=np.int64)
