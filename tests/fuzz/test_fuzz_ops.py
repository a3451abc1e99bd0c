"""Properties of the other operators over all that they take.

The error budget of standardisation is that of tests/test_ops, by import.
"""

import math
from fractions import Fraction

import hypothesis
import test_standardize_fused as standardize_tests
import torch
from hypothesis import strategies as st
from torch import Tensor

from fuzz.harness import (
    BAD,
    FEW,
    backends,
    seeds,
    spoil,
    using,
    value_and_gradient,
)
from fuzz.strategies import (
    DOUBLE,
    DTYPES,
    HALVES,
    SINGLE,
    WIDE,
    fuzz,
    pairs,
    permutation,
    shapes,
    tensors,
)
from mmrkkd.ops import (
    exact_kendall_tau,
    kl_divergence,
    pearson,
    soft_rank,
    standardize,
    top1_agreement,
)

TEMPERATURES = (1.0, 4.0, 0.1, 21.0)


@st.composite
def single(draw, dtypes=WIDE, **choices):
    """One tensor of logits."""
    choices.setdefault('shape', draw(shapes()))
    return draw(
        tensors(dtype=draw(st.sampled_from(dtypes)), **choices),
    )


@fuzz(
    values=single(),
    seed=seeds,
    backend=backends,
    # Of the deviation: near 1 rounding decides.
    share=st.sampled_from((None, 0.5, 2.0)),
)
def test_standardize_keeps_the_error_budget(values, seed, backend, share):
    generator = torch.Generator().manual_seed(seed)
    upstream = torch.randn(values.shape, generator=generator)
    hypothesis.assume(values.dtype == SINGLE or is_known_in_double(values))
    with using(backend):
        floor = None if share is None else share * values.std(-1)
        standardize_tests.check_budget(values, upstream, floor)


def is_known_in_double(values: Tensor) -> bool:
    """Whether the truth of the budget, float64, does not cancel itself."""
    if not values.numel():
        return True
    deviation = values.std(-1)
    spread = values.abs().amax(-1) <= 100 * deviation
    return bool((spread | (deviation == 0)).all())


@fuzz(
    values=st.one_of(single(shape=(3, 7)), single(shape=(2, 2, 33))),
    bad=st.sampled_from(BAD),
    row=seeds,
    backend=backends,
    choice=st.sampled_from(('standardize', 'soft_rank')),
)
def test_a_spoiled_row_is_nan_alone(values, bad, row, backend, choice):
    function = dict(standardize=standardize, soft_rank=soft_rank)[choice]
    spoiled, others = spoil(values, bad, row)
    with using(backend):
        clean = value_and_gradient(function, values.contiguous())
        result = value_and_gradient(function, spoiled)
    assert result[0][~others].isnan().all()
    for now, before in zip(result, clean):
        assert torch.equal(now[others], before[others])


def exact_ranks(row: list[float], scale: float) -> list[float]:
    """The min-max formula of isotonic regression in exact arithmetic."""
    z = [Fraction(value * scale) for value in row]
    n = len(z)
    order = sorted(range(n), key=lambda i: -z[i])
    y = [z[order[p]] - (n - p) for p in range(n)]
    ranks = [0.0] * n
    for p in range(n):
        pooled = min(
            max(sum(y[a : b + 1]) / (b + 1 - a) for b in range(p, n))
            for a in range(p + 1)
        )
        ranks[order[p]] = float(z[order[p]] - pooled)
    return ranks


@fuzz(
    values=st.one_of(
        *(
            single(shape=(2, classes), dtypes=DTYPES)
            for classes in (1, 2, 3, 5, 8)
        )
    ),
    regularization=st.sampled_from((1.0, 0.1, 1e-3, 1e3)),
    descending=st.booleans(),
    backend=backends,
)
def test_soft_ranks_are_exact(values, regularization, descending, backend):
    settings = dict(regularization=regularization, descending=descending)
    with using(backend):
        ranks, gradient = value_and_gradient(
            lambda leaf: soft_rank(leaf, **settings), values
        )
    scale = (-1.0 if descending else 1.0) / regularization
    expected = torch.tensor(
        [exact_ranks(row, scale) for row in values.tolist()], dtype=DOUBLE
    )
    # The bound of test_soft_rank.py, or the last bit of what is returned.
    rounding = torch.finfo(ranks.dtype).eps * values.shape[-1]
    assert ((ranks - expected).abs() <= max(1e-9, rounding)).all()
    assert gradient.isfinite().all() or values.dtype in HALVES
    assert gradient.dtype == values.dtype


@fuzz(
    values=single(dtypes=DTYPES),
    regularization=st.sampled_from((1.0, 0.03)),
    seed=seeds,
    backend=backends,
)
def test_soft_ranks_follow_their_scores(values, regularization, seed, backend):
    order = permutation(values.shape[-1], seed)
    settings = dict(regularization=regularization)
    with using(backend):
        ranks = soft_rank(values, **settings)
        permuted = soft_rank(values[..., order], **settings)
        flat = soft_rank(values.reshape(-1, values.shape[-1]), **settings)
    classes = values.shape[-1]
    rounding = torch.finfo(ranks.dtype).eps * classes
    assert (ranks >= 1 - 4 * rounding).all()
    assert (ranks <= classes + 4 * rounding).all()
    limits = dict(rtol=0, atol=max(1e-9, rounding))
    torch.testing.assert_close(permuted, ranks[..., order], **limits)
    assert torch.equal(flat.reshape(values.shape), ranks)
    exact = soft_rank(values.double(), **settings)
    torch.testing.assert_close(ranks.double(), exact, **limits)


def pair_sums(student: list[float], teacher: list[float]) -> tuple[int, ...]:
    """Concordant minus discordant, untied in each: one pair at a time."""
    agreement = student_untied = teacher_untied = 0
    for j in range(len(student)):
        for i in range(j):
            s = (student[i] > student[j]) - (student[i] < student[j])
            t = (teacher[i] > teacher[j]) - (teacher[i] < teacher[j])
            agreement += s * t
            student_untied += s * s
            teacher_untied += t * t
    return agreement, student_untied, teacher_untied


@fuzz(
    pair=pairs(),
    other_dtype=st.sampled_from(DTYPES),
    variant=st.sampled_from('ab'),
    backend=backends,
)
def test_exact_tau_equals_counting(pair, other_dtype, variant, backend):
    student, teacher = pair
    teacher = teacher.to(other_dtype)
    with using(backend):
        taus = exact_kendall_tau(student, teacher, variant)
    assert taus.shape == student.shape[:-1]
    assert not taus.requires_grad and taus.dtype == SINGLE
    classes = student.shape[-1]
    for tau, s, t in zip(
        taus.flatten(),
        student.reshape(-1, classes).tolist(),
        teacher.reshape(-1, classes).tolist(),
    ):
        agreement, *untied = pair_sums(s, t)
        if variant == 'a':
            untied = [classes * (classes - 1) / 2] * 2
        if not all(untied):
            assert tau.isnan()
            continue
        expected = agreement / math.sqrt(untied[0] * untied[1])
        assert abs(tau) <= 1
        assert abs(tau - expected) <= 4 * torch.finfo(SINGLE).eps


@fuzz(pair=pairs(), row=seeds, seed=seeds)
def test_top1_agreement_is_0_or_1_by_row(pair, row, seed):
    student, teacher = pair
    agreement = top1_agreement(student, teacher)
    assert agreement.shape == student.shape[:-1]
    assert ((agreement == 0) | (agreement == 1)).all()
    assert (top1_agreement(student, student) == 1).all()
    classes = student.shape[-1]
    for value, s, t in zip(
        agreement.flatten().tolist(),
        student.reshape(-1, classes).tolist(),
        teacher.reshape(-1, classes).tolist(),
    ):
        assert value == (s.index(max(s)) == t.index(max(t)))


@fuzz(pair=pairs(dtypes=WIDE), temperature=st.sampled_from(TEMPERATURES))
def test_kl_keeps_an_error_budget(pair, temperature):
    """4 units of rounding for each side that rounds, the oracle in float64.

    With z / T rounded to u |z / T|, the student's side is off by as much,
    and the teacher's by that times the log ratio, at most |s| + |t| + log C:
    d KL / d t_c = p_t(c) (log p_t(c) / p_s(c) - KL).
    """
    student, teacher = pair
    divergence, gradient = value_and_gradient(
        lambda leaf: kl_divergence(leaf, teacher, temperature), student
    )
    s, t = student.double() / temperature, teacher.double() / temperature
    log_s, log_t = (
        (z - z.amax(-1, keepdim=True)).log_softmax(-1) for z in (s, t)
    )
    expected = (log_t.exp() * (log_t - log_s)).sum(-1)
    largest = t.abs().amax(-1)
    ratio = math.log(s.shape[-1]) + s.abs().amax(-1) + largest
    unit = (1 + ratio) * (1 + largest)
    rounding = 4 * torch.finfo(student.dtype).eps
    allowed = rounding * unit * (1 if student.dtype == SINGLE else 2)
    assert divergence.shape == student.shape[:-1]
    assert divergence.isfinite().all() and gradient.isfinite().all()
    assert ((divergence - expected).abs() <= allowed).all()
    assert (divergence >= -allowed).all()
    zero, flat = value_and_gradient(
        lambda leaf: kl_divergence(leaf, teacher, temperature), teacher
    )
    assert (zero == 0).all()
    # The sum of C probabilities, a product and a difference.
    rounding = torch.finfo(flat.dtype).eps * (s.shape[-1] + 4)
    assert (flat.abs() <= rounding / temperature).all()


@fuzz(
    pair=pairs(samples=FEW, dtypes=WIDE),
    function=st.sampled_from((kl_divergence, pearson)),
    bad=st.sampled_from(BAD),
    row=seeds,
)
def test_a_spoiled_row_is_nan_alone_in_a_comparison(pair, function, bad, row):
    student, teacher = pair
    spoiled, others = spoil(student, bad, row)
    clean = value_and_gradient(
        lambda leaf: function(leaf, teacher), student.contiguous()
    )
    result = value_and_gradient(lambda leaf: function(leaf, teacher), spoiled)
    if bad != -math.inf or function is pearson:
        assert result[0][~others].isnan().all()
    for now, before in zip(result, clean):
        assert torch.equal(now[others], before[others])


@fuzz(pair=pairs(dtypes=WIDE), seed=seeds, dim=st.sampled_from((0, -1)))
def test_pearson_is_a_finite_correlation(pair, seed, dim):
    student, teacher = pair
    if student.numel() == 0 and student.shape[dim] == 0:
        return
    count = student.shape[dim]
    value, gradient = value_and_gradient(
        lambda leaf: pearson(leaf, teacher, dim), student
    )
    assert value.isfinite().all() and gradient.isfinite().all()
    rounding = 4 * count * torch.finfo(student.dtype).eps
    assert (value.abs() <= 1 + rounding).all()
    turned = pearson(-student, teacher, dim)
    assert torch.equal(turned, -value)
    assert torch.equal(pearson(teacher, student, dim), value)


@fuzz(pair=pairs(dtypes=(SINGLE,)))
def test_pearson_in_float32_is_as_good_as_its_centring(pair):
    """Rounding of the mean, over the deviation, is what is lost."""
    student, teacher = pair
    value = pearson(student, teacher)
    exact = pearson(student.double(), teacher.double())
    loss = torch.zeros_like(exact)
    squarable = torch.ones_like(exact, dtype=torch.bool)
    for values in (student.double(), teacher.double()):
        centered = values - values.mean(-1, keepdim=True)
        norm = centered.norm(dim=-1)
        loss += values.norm(dim=-1) / norm
        # Squares below float32's range count as no variation.
        squarable &= norm > 1e-15
    rounding = torch.finfo(SINGLE).eps * 4 * student.shape[-1]
    good = squarable & (loss * rounding < 1e-3)
    assert ((value - exact).abs()[good] <= (loss * rounding)[good]).all()
