"""Samples that know which they are, and which are of other classes."""

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.datasets import BaseDataset
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from mmrkkd.datasets import ContrastiveDataset
from mmrkkd.registry import DATASETS

LABELS = [0, 2, 1, 0, 0, 2, 1, 0]


class Labelled(Dataset):
    metainfo = dict(classes=('a', 'b', 'c'))

    def __init__(self, labels=LABELS):
        self.labels, self.times_read = labels, 0

    def full_init(self):
        self.times_read += 1

    def get_gt_labels(self):
        return np.array(self.labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        sample = DataSample().set_gt_label(self.labels[index])
        return dict(inputs=torch.zeros(3, 2, 2), data_samples=sample)


def test_samples_say_which_they_are():
    dataset = ContrastiveDataset(Labelled(), negatives=3)
    assert len(dataset) == 8
    assert dataset.metainfo == Labelled.metainfo
    sample = dataset[5]['data_samples']
    assert sample.metainfo['data_index'] == 5
    assert sample.metainfo['data_count'] == 8
    assert sample.negatives.shape == (3,)
    assert sample.negatives.dtype == torch.int64


@pytest.mark.parametrize('index', range(8))
def test_negatives_are_all_samples_of_other_classes(index):
    others = [i for i, label in enumerate(LABELS) if label != LABELS[index]]
    dataset = ContrastiveDataset(Labelled(), negatives=len(others))
    # As many as there are, none twice.
    assert sorted(dataset.draw(index).tolist()) == others


def test_negatives_repeat_where_there_are_too_few():
    dataset = ContrastiveDataset(Labelled(), negatives=200)
    drawn = dataset.draw(0)
    assert set(drawn.tolist()) == {1, 2, 5, 6}
    # Each is drawn a quarter of the time, give or take four deviations.
    counts = np.bincount(drawn)[[1, 2, 5, 6]]
    assert abs(counts - 50).max() < 25


def test_draws_are_those_of_the_seed():
    dataset = ContrastiveDataset(Labelled(), negatives=3)
    draws = []
    for _ in range(2):
        np.random.seed(7)
        draws.append([dataset.draw(0).tolist() for _ in range(4)])
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws[0]}) > 1


class Listed(BaseDataset):
    """MMPretrain's own kind, which its wrappers want."""

    def __init__(self, labels):
        self.labels = labels
        super().__init__(ann_file='', pipeline=[packed])

    def load_data_list(self):
        return [dict(gt_label=label) for label in self.labels]


def packed(info):
    return dict(data_samples=DataSample().set_gt_label(info['gt_label']))


def test_wrapped_data_sets():
    twice = RepeatDataset(Listed(LABELS), 2)
    both = ConcatDataset([Listed([1, 0]), Listed([2])])
    assert ContrastiveDataset(twice, 3).labels.tolist() == LABELS * 2
    dataset = ContrastiveDataset(both, 2)
    assert dataset.labels.tolist() == [1, 0, 2]
    # Places in the whole, not in its parts.
    assert dataset[2]['data_samples'].metainfo['data_index'] == 2
    assert sorted(dataset.draw(2).tolist()) == [0, 1]


def test_the_inner_data_set_is_read_once():
    inner = Labelled()
    dataset = ContrastiveDataset(inner, 3)
    dataset.full_init()
    assert inner.times_read == 1


def test_configs_know_it():
    dataset = DATASETS.build(
        dict(type='ContrastiveDataset', dataset=Labelled(), negatives=2)
    )
    assert len(dataset) == 8


@pytest.mark.parametrize(
    ('dataset', 'negatives', 'error', 'message'),
    [
        ([1, 2], 3, TypeError, r'get_gt_labels\(\), .*; list has none'),
        (Labelled([1, 1]), 3, ValueError, r'2 samples .* 1 class'),
        (Labelled(), 0, ValueError, 'negatives must be an integer >= 1'),
        (Labelled([[0, 1], [1, 0]]), 3, TypeError, 'the class of each sample'),
    ],
)
def test_errors(dataset, negatives, error, message):
    with pytest.raises(error, match=message):
        ContrastiveDataset(dataset, negatives)
