"""Soft ranks: golden values, an independent oracle, properties, errors."""

import sys

import pytest
import torch
from torch import Tensor

from mmrkkd.ops import soft_rank
from mmrkkd.ops.backends.cpu.native_library import native_library

soft_rank_module = sys.modules[soft_rank.__module__]
BACKENDS = ['torch', 'gpu'] + (
    ['native'] if native_library() is not None else []
)


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Makes the door use one backend."""
    if request.param != 'native':
        monkeypatch.setattr(soft_rank_module, 'native_library', lambda: None)
    if request.param == 'gpu':
        slopes = soft_rank_module.first_by_slopes
        monkeypatch.setattr(soft_rank_module, 'first_places', slopes)
        # Blocks of rows, and of places.
        monkeypatch.setattr(soft_rank_module, 'PAIRS_AT_ONCE', 100)
    return request.param


def ranks_of_a_row(
    values: list[float], regularization: float, descending: bool
) -> Tensor:
    """The min-max formula of isotonic regression, by loops over indices.

    For y_1 ... y_n the nearest non-increasing sequence is
    v_p = min over a <= p of max over b >= p of mean(y_a ... y_b).
    """
    sign = -1 if descending else 1
    z = [sign * value / regularization for value in values]
    n = len(z)
    order = sorted(range(n), key=lambda i: -z[i])
    y = [z[order[p]] - (n - p) for p in range(n)]
    ranks = [0.0] * n
    for p in range(n):
        pooled = min(
            max(sum(y[a : b + 1]) / (b + 1 - a) for b in range(p, n))
            for a in range(p + 1)
        )
        ranks[order[p]] = z[order[p]] - pooled
    return torch.tensor(ranks, dtype=torch.float64)


@pytest.mark.parametrize(
    'values, expected',
    [
        # y = (3 - 2, 0 - 1) does not increase: hard ranks.
        ([0.0, 3.0], [1.0, 2.0]),
        # y = (.5 - 2, 0 - 1) increases, mean -1.25: (0, .5) + 1.25.
        ([0.0, 0.5], [1.25, 1.75]),
        # Ties share the mean of their ranks.
        ([5.0, 5.0, 0.0], [2.5, 2.5, 1.0]),
        ([4.0], [1.0]),
        # y = (9 - 3, .5 - 2, 0 - 1): the last two are pooled, mean -1.25.
        ([0.5, 9.0, 0.0], [1.75, 3.0, 1.25]),
    ],
)
def test_values_worked_out_by_hand(backend, values, expected):
    values, expected = torch.tensor([values]), torch.tensor([expected])
    torch.testing.assert_close(soft_rank(values, descending=False), expected)
    # The two directions add up to n + 1.
    torch.testing.assert_close(
        soft_rank(values), values.shape[-1] + 1 - expected
    )


@pytest.mark.parametrize('descending', [True, False])
@pytest.mark.parametrize('regularization', [1.0, 0.3, 0.03, 0.001])
def test_agrees_with_the_min_max_formula(backend, regularization, descending):
    generator = torch.Generator().manual_seed(3)
    values = 2 * torch.randn(8, 12, generator=generator, dtype=torch.float64)
    values[0] = values[0].round()
    values[1] = 0.7
    values[2] = torch.arange(12)
    values[3] = -torch.arange(12) * 0.3
    expected = torch.stack(
        [
            ranks_of_a_row(row.tolist(), regularization, descending)
            for row in values
        ]
    )
    ranks = soft_rank(
        values, regularization=regularization, descending=descending
    )
    torch.testing.assert_close(ranks, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize('classes', [1, 2, 15, 16, 17, 127, 128, 129, 300])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.skipif('native' not in BACKENDS, reason='needs a C compiler')
def test_both_sorts_are_stable_and_equal_pytorchs(classes, dtype):
    """Few classes are counted, many go through a radix sort."""
    # Blocks of whole numbers whose means are equal are one or two, by how
    # they are rounded: the ranks are the same. These numbers have none.
    torch.manual_seed(0)
    values = torch.randint(-9, 9, (6, classes)).to(dtype)
    values[1] = torch.randn(classes)
    values[2] = 1e30 * torch.randn(classes)
    values[3] = torch.arange(classes)
    values[4] = -0.0
    values[4, ::2] = 0.0
    for scale in (0.7, -20.0):
        ranks, order, block = torch.ops.mmrkkd.soft_rank(values, scale)
        expected = soft_rank_module.soft_rank_torch(values, scale)
        assert torch.equal(block, expected[2])
        torch.testing.assert_close(ranks, expected[0])
        # The order within one block of all classes counts for nothing.
        several = (block > 0).any(-1)
        assert torch.equal(order[several], expected[1][several])


@pytest.mark.parametrize('n', [2, 3, 10, 100, 1000])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('scale', [1.0, -4.0])
def test_up_to_half_of_n_there_is_one_block(backend, n, dtype, scale):
    """With z no wider than n / 2 the ranks are centred scores, exactly."""
    width = n / 2 / abs(scale)
    values = width * torch.rand(8, n, dtype=dtype)
    # As wide as may be: half of the classes at either end, one, all but one.
    values[:3] = 0
    values[0, : n // 2] = values[1, 0] = values[2, 1:] = width
    values[3] += 1e4
    values.requires_grad_()
    ranks = soft_rank(
        values, regularization=1 / abs(scale), descending=scale < 0
    )
    wide = values.detach().double()
    expected = (wide - wide.mean(-1, keepdim=True)) * scale + (n + 1) / 2
    torch.testing.assert_close(ranks, expected.to(dtype))
    weight = torch.randn(8, n, dtype=dtype)
    (slope,) = torch.autograd.grad((ranks * weight).sum(), values)
    centred = weight - weight.mean(-1, keepdim=True)
    torch.testing.assert_close(slope, centred * scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('regularization', [1.0, 0.1, 0.03, 0.01])
def test_agrees_with_the_published_package(backend, regularization):
    torchsort = pytest.importorskip(
        'torchsort', reason='compared where torchsort is installed'
    )
    values, weight = torch.randn(2, 16, 100, dtype=torch.float64)
    ours, theirs = (v.clone().requires_grad_() for v in (values, values))
    ranks = soft_rank(ours, regularization=regularization, descending=False)
    published = torchsort.soft_rank(
        theirs, regularization_strength=regularization
    )
    torch.testing.assert_close(ranks, published, rtol=0, atol=1e-5)
    (ranks * weight).sum().backward()
    (published * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5)


def test_small_regularization_gives_the_ranks(backend):
    values = torch.stack([torch.randperm(300) for _ in range(5)]) * 0.01
    ranks = soft_rank(values, regularization=1e-6)
    hard = values.argsort(descending=True).argsort() + 1
    torch.testing.assert_close(ranks, hard.float())


def test_large_regularization_only_centres(backend):
    values = torch.randn(5, 100)
    expected = 50.5 - (values - values.mean(-1, keepdim=True)) / 2
    torch.testing.assert_close(soft_rank(values, regularization=2.0), expected)


@pytest.mark.parametrize('regularization', [1.0, 0.1, 0.01])
def test_properties(backend, regularization):
    values = torch.randn(4, 50, dtype=torch.float64)
    ranks = soft_rank(values, regularization=regularization)
    sums = torch.full((4,), 50 * 51 / 2, dtype=torch.float64)
    torch.testing.assert_close(ranks.sum(-1), sums)
    assert ranks.min() >= 1 - 1e-9 and ranks.max() <= 50 + 1e-9
    shifted = soft_rank(values + 7, regularization=regularization)
    torch.testing.assert_close(shifted, ranks)
    scaled = soft_rank(3 * values, regularization=3 * regularization)
    torch.testing.assert_close(scaled, ranks)
    permutation = torch.randperm(50)
    torch.testing.assert_close(
        soft_rank(values[:, permutation], regularization=regularization),
        ranks[:, permutation],
    )
    by_value = values.argsort(descending=True)
    assert (ranks.gather(-1, by_value).diff(dim=-1) >= -1e-9).all()


@pytest.mark.parametrize('descending', [True, False])
@pytest.mark.parametrize('regularization', [1.0, 0.2, 0.05])
def test_gradcheck_with_one_and_with_many_blocks(
    backend, regularization, descending
):
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(3, 14, generator=generator, dtype=torch.float64)
    values.requires_grad_()
    _, _, block = torch.ops.mmrkkd.soft_rank(
        values.detach(), 1 / regularization
    )
    blocks = len(block[0].unique())
    assert blocks == 1 if regularization == 1 else 1 < blocks < 14

    def ranks(x):
        return soft_rank(
            x, regularization=regularization, descending=descending
        )

    # Half the smallest gap between scores or blocks is far above eps.
    assert torch.autograd.gradcheck(ranks, values, eps=1e-7, atol=1e-5)
    assert torch.autograd.gradgradcheck(ranks, values, eps=1e-7, atol=1e-5)


def test_a_class_alone_in_its_block_gets_no_gradient(backend):
    values = torch.tensor([[9.0, 0.5, 0.0]], requires_grad=True)
    (soft_rank(values) * torch.tensor([[1.0, 2.0, 5.0]])).sum().backward()
    # The other two: minus (2, 5) centred.
    torch.testing.assert_close(values.grad, torch.tensor([[0.0, 1.5, -1.5]]))


@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_every_dtype_strides_and_leading_dimensions(backend, dtype):
    values = torch.randn(6, 3, 2, 5).to(dtype).permute(3, 2, 0, 1)[::2]
    ranks = soft_rank(values, regularization=0.1)
    assert ranks.shape == values.shape
    assert ranks.dtype == torch.promote_types(dtype, torch.float32)
    expected = ranks_of_a_row(values[1, 0, 2].tolist(), 0.1, True)
    torch.testing.assert_close(
        ranks[1, 0, 2], expected.to(ranks.dtype), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_not_finite_spoils_its_row_only(backend, bad):
    values = torch.randn(3, 9)
    clean = soft_rank(values)
    values[1, 2] = bad
    ranks = soft_rank(values)
    assert ranks[1].isnan().all()
    assert torch.equal(ranks[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize('scale', [1e4, 1e30, 1e-30, 1e-42])
def test_extreme_scores_stay_ranks(backend, scale):
    values = scale * torch.randn(4, 33)
    for regularization in (1.0, 1e-3):
        ranks = soft_rank(values, regularization=regularization)
        assert torch.isfinite(ranks).all()
        torch.testing.assert_close(
            ranks.sum(-1), torch.full((4,), 33 * 34 / 2.0)
        )


def test_no_rows(backend):
    values = torch.zeros(0, 4, requires_grad=True)
    soft_rank(values).sum().backward()
    assert values.grad.shape == (0, 4)


def test_vmap_is_the_batched_call(backend):
    values = torch.randn(4, 3, 8)
    ranks = torch.func.vmap(lambda v: soft_rank(v, regularization=0.1))(values)
    assert torch.equal(ranks, soft_rank(values, regularization=0.1))
    gradient = torch.func.vmap(
        torch.func.grad(lambda v: soft_rank(v).square().sum())
    )(values)
    assert gradient.shape == values.shape


def test_a_compiled_caller_keeps_it_whole():
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda v: soft_rank(v, regularization=0.1).square().mean(),
        fullgraph=True,
        backend='aot_eager',
    )
    values = torch.randn(4, 9, requires_grad=True)
    compiled(values).backward()
    (expected,) = torch.autograd.grad(
        soft_rank(values, regularization=0.1).square().mean(), values
    )
    torch.testing.assert_close(values.grad, expected)


def test_many_rows_on_threads_equal_one_row_at_a_time():
    values = torch.randn(100, 333)
    ranks = soft_rank(values, regularization=0.01)
    for row in (0, 57, 99):
        alone = soft_rank(values[row], regularization=0.01)
        assert torch.equal(alone, ranks[row])


def test_errors_name_the_argument():
    with pytest.raises(TypeError, match='values must be a floating point'):
        soft_rank(torch.arange(3))
    with pytest.raises(ValueError, match='at least 1 class'):
        soft_rank(torch.zeros(3, 0))
    with pytest.raises(ValueError, match='regularization must be a finite'):
        soft_rank(torch.zeros(3), regularization=0)
