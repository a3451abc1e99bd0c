"""CRD: an image's own representation told from those of other classes."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from mmrkkd.losses import CRDLoss
from mmrkkd.losses.feature import FeaturePair

N, D, K, T = 9, 4, 5, 0.2


def samples(indices, count=N):
    generator = torch.Generator().manual_seed(5)
    return [
        SimpleNamespace(
            metainfo=dict(data_index=index, data_count=count),
            negatives=torch.randint(count, (K,), generator=generator),
        )
        for index in indices
    ]


def made(**options):
    """A loss whose embeddings hand the features on."""
    torch.manual_seed(0)
    loss = CRDLoss(N, 'a', temperature=T, dim=D, **options).double()
    loss.connect([(1, D)], [(1, D)])
    for layer in (
        loss.contrasts[0].embed_student,
        loss.contrasts[0].embed_teacher,
    ):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return loss.double()


def pair(indices=(2, 7, 4), seed=1):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(
        2, len(indices), D, generator=generator, dtype=torch.float64
    )
    return FeaturePair([student], [teacher], samples(indices))


def oracle(batch, banks, partitions):
    """The published loss, an image and a negative at a time."""
    sides = [batch.student[0], batch.teacher[0]]
    total = 0.0
    for features, bank, z in zip(sides, banks[::-1], partitions):
        for vector, sample in zip(normalize(features), batch.samples):
            own = sample.metainfo['data_index']
            score = [
                math.exp(float(vector @ bank[j]) / T) / z
                for j in (own, *sample.negatives.tolist())
            ]
            noise = K / N
            total -= math.log(score[0] / (score[0] + noise + 1e-7))
            for value in score[1:]:
                total -= math.log(noise / (value + noise + 1e-7))
    return total / len(batch.samples)


def first_partitions(batch, banks):
    sides = [batch.student[0], batch.teacher[0]]
    for features, bank in zip(sides, banks[::-1]):
        scores = [
            math.exp(float(vector @ bank[j]) / T)
            for vector, sample in zip(normalize(features), batch.samples)
            for j in (
                sample.metainfo['data_index'],
                *sample.negatives.tolist(),
            )
        ]
        yield N * sum(scores) / len(scores)


def banks_of(loss):
    contrast = loss.contrasts[0]
    return [contrast.student_bank.clone(), contrast.teacher_bank.clone()]


def test_loop_over_images_and_negatives():
    loss, batch = made(loss_weight=3.0), pair()
    banks = banks_of(loss)
    z = list(first_partitions(batch, banks))
    term = loss(batch)['loss_crd'].item()
    assert term == pytest.approx(3 * oracle(batch, banks, z))
    assert loss.contrasts[0].partition.tolist() == pytest.approx(z)
    # The second batch meets moved banks and the same normalisation.
    batch, banks = pair((2, 0), seed=2), banks_of(loss)
    term = loss(batch)['loss_crd'].item()
    assert term == pytest.approx(3 * oracle(batch, banks, z))
    assert loss.contrasts[0].partition.tolist() == pytest.approx(z)


def test_rows_of_the_batch_move_and_no_other():
    loss, batch = made(momentum=0.75), pair()
    before = banks_of(loss)
    loss(batch)
    for was, bank, features in zip(
        before, banks_of(loss), (batch.student[0], batch.teacher[0])
    ):
        rows = [2, 7, 4]
        expected = 0.75 * was[rows] + 0.25 * normalize(features)
        torch.testing.assert_close(bank[rows], normalize(expected))
        others = [row for row in range(N) if row not in rows]
        assert torch.equal(bank[others], was[others])


def test_banks_start_in_the_published_range():
    loss = CRDLoss(2000, 'a')
    loss.connect([(1, 6)], [(1, 7)])
    bank = loss.contrasts[0].student_bank
    bound = math.sqrt(3 / 128)
    assert bank.shape == (2000, 128)
    assert bank.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert bank.mean().item() == pytest.approx(0, abs=1e-3)
    # 8 n D bytes, as the docstring says.
    held = sum(b.numel() * b.element_size() for b in loss.buffers())
    assert held == 8 * 2000 * 128 + 8


def test_gradient_is_that_of_the_rows_before_they_moved():
    loss, batch = made(), pair()
    student = batch.student[0].requires_grad_()
    banks = banks_of(loss)
    z = list(first_partitions(batch, banks))
    loss(batch)['loss_crd'].backward()
    step = 1e-6
    for place in ((0, 0), (2, 3)):
        values = []
        for sign in (1, -1):
            moved = pair()
            moved.student[0][place] += sign * step
            values.append(oracle(moved, banks, z))
        slope = 0.8 * (values[0] - values[1]) / (2 * step)
        assert student.grad[place].item() == pytest.approx(slope, rel=1e-4)


def test_processes_share_their_rows(one_process):
    loss, batch = made(), pair()
    alone = loss(batch)['loss_crd'].item()
    twin = made()
    assert twin(pair())['loss_crd'].item() == alone


def test_maps_are_flattened():
    loss = CRDLoss(N, 'a')
    loss.connect([(1, 2, 3, 3)], [(1, 5)])
    assert loss.contrasts[0].embed_student.in_features == 18


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ((), r'which image .* wrap the training set, .*ContrastiveDataset'),
        ([SimpleNamespace(metainfo={})] * 3, 'wrap the training set'),
        (samples((1, 2, 3), 12), r'which has 12; got num_data=9'),
    ],
)
def test_samples_without_what_is_needed(given, message):
    batch = pair()
    batch.samples = given
    with pytest.raises(ValueError, match=message):
        made()(batch)


def test_layers_must_be_connected():
    with pytest.raises(ValueError, match='CRDLoss has .* 0 layers, got 1'):
        CRDLoss(N, 'a')(pair())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_data=1), 'num_data must be an integer >= 2, got 1'),
        (dict(num_data=9, dim=0), 'dim must be an integer >= 1, got 0'),
        (dict(num_data=9, dim=True), 'dim must be .* got True'),
        (dict(num_data=9, momentum=1.0), 'momentum must be below 1'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        CRDLoss(**options)
