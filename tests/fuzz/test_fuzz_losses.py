"""Properties of every registered logit loss, over what may reach it.

The limits are PyTorch's own for the type (``assert_close``), as in
tests/test_losses/test_contracts.py, whose list of losses is used.
"""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from test_contracts import LOSSES, in_views, of_samples, total
from torch import Tensor

from fuzz.strategies import (
    DOUBLE,
    DTYPES,
    HALVES,
    SINGLE,
    WIDE,
    fuzz,
    permutation,
    shapes,
    tensors,
)
from mmrkkd.losses import Progress, set_progress

# Of scores of classes: boxes have four numbers, whatever is drawn.
NAMES = sorted(set(LOSSES) - {'BoxGIoULoss'})
# Terms that belong to the whole batch, or to the boxes of an object.
OF_THE_BATCH = {'DISTLoss', 'MLKDLoss', 'BoxRankLoss', 'RankMimicLoss'}
# A sample or a class counts or does not: rounding may decide at the limit.
SELECTING = {'CRLDLoss', 'MLKDLoss'}
# Neither ties nor equal samples, where some of the losses have kinks.
MODERATE = dict(
    kinds=('normal',),
    magnitudes=(1.0, 0.1, 5.0),
    layouts=('contiguous', 'transposed', 'sliced', 'offset'),
)
SETTINGS = {
    'KDLoss': st.builds(dict, temperature=st.sampled_from((1, 0.1, 21.0))),
    'KendallLoss': st.builds(
        dict,
        steepness=st.sampled_from((1, 0.01, 100.0)),
        form=st.sampled_from((1, 2, 3)),
        normalize=st.booleans(),
        impl=st.sampled_from(('auto', 'eager')),
        min_std=st.sampled_from((None, 0.5, dict(absolute=1.0))),
    ),
    'RankKDLoss': st.builds(
        dict,
        kd=st.sampled_from(
            sorted(set(NAMES) - {'RankKDLoss', 'KendallLoss'}),
        ).map(lambda name: dict(type=name)),
        form=st.sampled_from((1, 2, 3)),
        min_std=st.sampled_from((None, 0.5)),
    ),
    'LSKDLoss': st.builds(
        dict,
        kd=st.sampled_from(('KDLoss', 'DKDLoss', 'NKDLoss', 'DISTLoss')).map(
            lambda name: dict(type=name)
        ),
    ),
    'LRALoss': st.builds(
        dict,
        distance=st.sampled_from(('l2', 'l1', 'spearman')),
        regularization=st.sampled_from((1.0, 0.03)),
        standardize=st.booleans(),
    ),
    'MLKDLoss': st.builds(
        dict, standardize=st.booleans(), mend_slips=st.booleans()
    ),
    'DKDLoss': st.builds(dict, temperature=st.sampled_from((1, 0.1, 4.0))),
    'NKDLoss': st.builds(dict, temperature=st.sampled_from((1, 0.1, 4.0))),
    'DISTLoss': st.builds(dict, temperature=st.sampled_from((1, 0.1, 4.0))),
    'CRLDLoss': st.builds(
        dict,
        weak_threshold=st.sampled_from((0.9, 0, 1)),
    ),
    'PLDLoss': st.builds(dict, temperature=st.sampled_from((1, 0.1, 4.0))),
    'ListMLELoss': st.builds(dict, label_first=st.booleans()),
    'TTMLoss': st.builds(dict, exponent=st.sampled_from((0.1, 1.0, 2.0))),
    'WTTMLoss': st.builds(dict, exponent=st.sampled_from((0.2, 1.0, 2.0))),
}
seeds = st.integers(0, 99)


def parts(loss) -> set[str]:
    """The names of the losses inside a loss, its own included."""
    return {type(part).__name__ for part in loss.modules()}


@st.composite
def calls(
    draw, name, samples=((1,), (2,), (6,), (0,)), dtypes=DTYPES, **numbers
):
    """A loss and what it is called with: logits, labels and weights."""
    settings = draw(SETTINGS.get(name, st.just({})))
    loss = LOSSES[name](**settings)
    set_progress(loss, Progress(epoch=draw(st.sampled_from((1, 7, 300)))))
    shape = draw(shapes(samples, (2, 3, 5, 10, 33)))
    views = shape if loss.views == 1 else (loss.views, *shape)
    dtype = draw(st.sampled_from(dtypes))
    student, teacher = (draw(tensors(views, dtype, **numbers)) for _ in 'st')
    generator = torch.Generator().manual_seed(draw(seeds))
    labels = torch.randint(shape[-1], shape[:-1], generator=generator)
    weight = None
    if draw(st.booleans()):
        weight = torch.rand(shape[:-1], generator=generator)
        weight *= draw(st.sampled_from((1.0, 1e-6, 1e6, 1e-30, 1e30)))
        weight[torch.rand(weight.shape, generator=generator) < 0.3] = 0
        weight = in_views(loss, weight)
    return loss, student, teacher, in_views(loss, labels), weight


def terms_and_gradient(loss, student: Tensor, *rest):
    """The terms, their sum's value and its gradient at the student."""
    leaf = student.detach().requires_grad_()
    terms = loss(leaf, *rest)
    (gradient,) = torch.autograd.grad(total(terms), leaf)
    return {key: value.detach() for key, value in terms.items()}, gradient


def check_same(result, expected) -> None:
    """Equal within assert_close's limits; gradients by their largest."""
    torch.testing.assert_close(result[0], expected[0])
    largest = expected[1].abs().max().item() if expected[1].numel() else 0.0
    limit = 1e-7 if expected[1].dtype == DOUBLE else 1.3e-6
    torch.testing.assert_close(
        result[1], expected[1], rtol=limit, atol=limit * max(largest, 1)
    )


def test_every_loss_with_settings_is_registered():
    assert set(SETTINGS) <= set(LOSSES)


@pytest.mark.parametrize('name', NAMES)
@fuzz(data=st.data(), other=st.sampled_from((None, DOUBLE)))
def test_terms_are_finite_scalars_and_deterministic(name, data, other):
    loss, student, teacher, labels, weight = data.draw(calls(name))
    teacher = teacher.to(other)
    student = student.detach().requires_grad_()
    teacher = teacher.detach().requires_grad_()
    terms = loss(student, teacher, labels, weight)
    for key, value in terms.items():
        assert value.shape == () and value.isfinite(), key
        assert value.dtype == torch.promote_types(teacher.dtype, SINGLE)
        optimised = 'loss' in key
        assert key.startswith('loss_' if optimised else 'kd/')
        assert value.requires_grad == optimised
    again = loss(student, teacher, labels, weight)
    assert list(again) == list(terms)
    none = of_samples(loss, slice(0))
    empty = loss(student[none], teacher[none], labels[none])
    assert list(empty) == list(terms) and total(empty) == 0
    assert all(torch.equal(again[key], terms[key]) for key in terms)
    total(terms).backward()
    assert student.grad.dtype == student.dtype
    assert student.grad.isfinite().all() or student.dtype in HALVES
    assert teacher.grad is None
    for parameter in loss.parameters():
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize('name', NAMES)
@fuzz(data=st.data())
def test_halves_are_computed_in_float32(name, data):
    loss, student, *rest = data.draw(calls(name, dtypes=HALVES))
    terms, gradient = terms_and_gradient(loss, student, *rest)
    rest[0] = rest[0].float()
    exact, exact_gradient = terms_and_gradient(loss, student.float(), *rest)
    assert terms == exact
    assert torch.equal(gradient, exact_gradient.to(student.dtype))


# Soft ranks have kinks, where a difference quotient is no derivative.
@pytest.mark.parametrize('name', sorted(set(NAMES) - {'LRALoss'}))
@fuzz(data=st.data())
def test_the_gradient_is_that_of_the_value(name, data):
    loss, student, teacher, labels, weight = data.draw(
        calls(name, samples=((1,), (6,)), dtypes=(DOUBLE,), **MODERATE)
    )
    hypothesis.assume('LRALoss' not in parts(loss))
    student = student.contiguous().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda leaf: total(loss(leaf, teacher, labels, weight)),
        student,
        fast_mode=True,
    )


@pytest.mark.parametrize('name', ['KendallLoss', 'RankKDLoss'])
@fuzz(data=st.data(), form=st.sampled_from((1, 2, 3)))
def test_the_ranking_is_the_same_by_the_plain_equation(name, data, form):
    _, *call = data.draw(calls('KendallLoss', dtypes=(DOUBLE,)))
    plain, fused = (
        LOSSES[name](form=form, impl=impl) for impl in ('eager', 'fused')
    )
    check_same(
        terms_and_gradient(fused, *call), terms_and_gradient(plain, *call)
    )


@pytest.mark.parametrize('name', NAMES)
@fuzz(data=st.data(), seed=seeds)
def test_the_order_of_classes_and_samples_does_not_matter(name, data, seed):
    loss, student, teacher, labels, weight = data.draw(
        calls(name, samples=((1,), (6,)), dtypes=(DOUBLE,), **MODERATE)
    )
    classes = permutation(student.shape[-1], seed)
    rows = permutation(student.shape[-2], seed)
    place = of_samples(loss, rows)
    moved = classes.argsort()[labels]
    expected, gradient = terms_and_gradient(
        loss, student, teacher, labels, weight
    )
    check_same(
        terms_and_gradient(
            loss,
            student[place][..., classes],
            teacher[place][..., classes],
            moved[place],
            None if weight is None else weight[place],
        ),
        (expected, gradient[place][..., classes]),
    )


@pytest.mark.parametrize('name', NAMES)
@fuzz(data=st.data())
def test_weight_0_equals_slicing(name, data):
    loss, student, teacher, labels, _ = data.draw(
        calls(name, samples=((2,), (6,)), dtypes=WIDE)
    )
    count = student.shape[-2]
    kept = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    )
    place = of_samples(loss, kept)
    terms, gradient = terms_and_gradient(
        loss, student, teacher, labels, in_views(loss, kept.double())
    )
    expected = terms_and_gradient(
        loss, student[place], teacher[place], labels[place]
    )
    assert (gradient[of_samples(loss, ~kept)] == 0).all()
    check_same((terms, gradient[place]), expected)


@pytest.mark.parametrize('name', NAMES)
@fuzz(data=st.data(), factor=st.sampled_from((2.0**-90, 2.0**-9, 2.0**90)))
def test_the_scale_of_weights_does_not_matter(name, data, factor):
    """Powers of two, whose products do not round."""
    loss, student, teacher, labels, _ = data.draw(
        calls(name, samples=((1,), (6,)), dtypes=WIDE)
    )
    weight = torch.linspace(0.1, 2, student.shape[-2])
    check_same(
        terms_and_gradient(
            loss, student, teacher, labels, in_views(loss, factor * weight)
        ),
        terms_and_gradient(
            loss, student, teacher, labels, in_views(loss, weight)
        ),
    )


@pytest.mark.parametrize('name', NAMES)
@fuzz(data=st.data())
def test_leading_dimensions_are_samples(name, data):
    loss, student, teacher, labels, weight = data.draw(
        calls(name, samples=((2, 3), (0, 2), (1, 2, 2)), dtypes=WIDE)
    )
    first = 0 if loss.views == 1 else 1
    last = student.dim() - 2
    flat = [
        None if values is None else values.flatten(first, last)
        for values in (student, teacher, labels, weight)
    ]
    expected, gradient = terms_and_gradient(loss, *flat)
    result = terms_and_gradient(loss, student, teacher, labels, weight)
    check_same(result, (expected, gradient.reshape(student.shape)))


@pytest.mark.parametrize('name', sorted(set(NAMES) - OF_THE_BATCH))
@fuzz(data=st.data(), bad=st.sampled_from((torch.nan, torch.inf)))
def test_a_spoiled_sample_leaves_the_gradient_of_others(name, data, bad):
    loss, student, teacher, labels, _ = data.draw(
        calls(name, samples=((2,), (6,)), dtypes=WIDE)
    )
    hypothesis.assume(not parts(loss) & OF_THE_BATCH)
    # Sums go through another layout in another order.
    student = student.contiguous()
    _, clean = terms_and_gradient(loss, student, teacher, labels)
    spoiled = student.clone()
    spoiled[..., 1, 0] = bad
    terms, gradient = terms_and_gradient(loss, spoiled, teacher, labels)
    assert parts(loss) & SELECTING or not total(terms).isfinite()
    others = of_samples(loss, torch.arange(student.shape[-2]) != 1)
    assert torch.equal(gradient[others], clean[others])


@pytest.mark.parametrize('name', NAMES)
@fuzz(data=st.data())
def test_layout_does_not_matter(name, data):
    loss, student, teacher, labels, weight = data.draw(
        calls(name, samples=((1,), (3,)), dtypes=WIDE)
    )
    check_same(
        terms_and_gradient(loss, student, teacher, labels, weight),
        terms_and_gradient(
            loss,
            student.contiguous(),
            teacher.contiguous(),
            labels.contiguous(),
            weight,
        ),
    )
