"""CRD: an image's own representation told from those of other classes."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import free_port
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


# The last step's are larger than all before, as after a resume.
BATCHES = [
    ((2, 7, 4), (0, 5)),
    ((1, 3), (8, 0, 6)),
    ((2, 7, 4, 0), (1, 3, 5, 8)),
]


def in_two_processes(rank, port, results):
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=2,
    )
    loss = made()
    for step, batches in enumerate(BATCHES):
        loss(pair(batches[rank], seed=2 * step + rank))
    results[rank] = loss.state_dict()
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_with_unlike_batches_share_their_rows():
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(in_two_processes, (free_port(), results), nprocs=2)
        found = [results[rank] for rank in range(2)]
    alone = made()
    for step, batches in enumerate(BATCHES):
        parts = [
            pair(indices, seed=2 * step + rank)
            for rank, indices in enumerate(batches)
        ]
        alone(
            FeaturePair(
                [torch.cat([part.student[0] for part in parts])],
                [torch.cat([part.teacher[0] for part in parts])],
                [sample for part in parts for sample in part.samples],
            )
        )
    for key, expected in alone.state_dict().items():
        assert torch.equal(found[0][key], found[1][key]), key
        torch.testing.assert_close(found[0][key], expected)


def test_a_smaller_batch_repeats_its_first_row(one_process):
    """As the other process has more, which changes no bank."""
    loss, twin = made(), made()
    twin.contrasts[0].most = 5
    assert torch.equal(loss(pair())['loss_crd'], twin(pair())['loss_crd'])
    for bank, other in zip(banks_of(loss), banks_of(twin)):
        assert torch.equal(bank, other)


def test_a_larger_batch_than_the_first_is_agreed_upon(one_process):
    loss = made()
    loss(pair())
    assert loss.contrasts[0].most == 3
    loss(pair((2, 7, 4, 0)))
    loss(pair((2,)))
    assert loss.contrasts[0].most == 4


def test_one_process_takes_batches_of_any_size():
    loss = made()
    for indices in ((2,), (2, 7, 4), (1, 2)):
        assert loss(pair(indices))['loss_crd'].isfinite()


def test_mixed_images_are_refused_and_leave_the_banks():
    loss, batch = made(), pair()
    banks = banks_of(loss)
    shares = torch.eye(3)
    shares[1] = torch.tensor([0.4, 0.6, 0.0])
    for sample, share in zip(batch.samples, shares):
        sample.gt_score = share
    with pytest.raises(
        ValueError,
        match=r'CRDLoss needs one class .* in 1 of 3 .*\(batch_augments',
    ):
        loss(batch)
    assert all(map(torch.equal, banks, banks_of(loss)))
    # One-hot labels are no mixed ones.
    batch.samples[1].gt_score = torch.tensor([0.0, 1.0, 0.0])
    assert loss(batch) == made()(pair())


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
