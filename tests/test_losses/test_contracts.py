"""What every registered logit loss must keep."""

import inspect

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from mmrkkd.losses import (
    BinaryKDLoss,
    DKDLoss,
    KDLoss,
    KendallLoss,
    LogitLoss,
    Progress,
    RankKDLoss,
    base,
    set_progress,
)
from mmrkkd.registry import MODELS

N, C = 6, 10
LOSSES = {
    name: module
    for name, module in sorted(MODELS.module_dict.items())
    if inspect.isclass(module) and issubclass(module, LogitLoss)
}
WEIGHTS = [
    (name, argument)
    for name, module in LOSSES.items()
    for argument in inspect.signature(module).parameters
    # KendallLoss has an old name of its weight.
    if argument.endswith('weight')
    and (name, argument) != ('KendallLoss', 'loss_weight')
]
# Standardised logits and ranks need a number for every class, boxes for every
# side.
OF_FINITE_LOGITS = {
    'BoxGIoULoss',
    'BoxRankLoss',
    'KendallLoss',
    'LRALoss',
    'LSKDLoss',
    'RankKDLoss',
}
OPTIONS = [
    (name, argument)
    for name, module in LOSSES.items()
    for argument in inspect.signature(module).parameters
]


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]()


@pytest.fixture(
    params=[name for name, module in LOSSES.items() if module().views > 1]
)
def loss_of_views(request):
    return LOSSES[request.param]()


@pytest.fixture(
    params=[name for name, module in LOSSES.items() if module().needs_labels]
)
def loss_of_labels(request):
    return LOSSES[request.param]()


def batch(loss, *samples, classes=C, seed=0, dtype=torch.float64):
    """Logits (..., C) and labels (...); (V, ..., C) and (V, ...) of views."""
    generator = torch.Generator().manual_seed(seed)
    views = samples if loss.views == 1 else (loss.views, *samples)
    student, teacher = 2 * torch.randn(
        2, *views, classes, generator=generator, dtype=torch.float64
    )
    labels = torch.randint(classes, samples, generator=generator)
    if 'groups' in loss.asks_for:
        # Several candidates of an object.
        labels = 3 + labels % 2
    return (
        student.to(dtype).requires_grad_(),
        teacher.to(dtype),
        in_views(loss, labels),
    )


def in_views(loss, values):
    """The same values (...) for each view, (V, ...)."""
    if loss.views == 1:
        return values
    return values.expand(loss.views, *values.shape).clone()


def of_samples(loss, index):
    """The index of samples, in every view."""
    return index if loss.views == 1 else (slice(None), index)


def total(terms):
    """What is optimised."""
    return sum(value for name, value in terms.items() if 'loss' in name)


def test_losses_are_found():
    assert {'KDLoss', 'KendallLoss', 'RankKDLoss'} <= set(LOSSES)


def test_terms_are_named_scalars(loss):
    terms = loss(*batch(loss, N))
    assert terms
    for value in terms.values():
        assert value.shape == ()
        assert value.isfinite()
    assert any(name.startswith('loss_') for name in terms)


def test_diagnostics_are_not_optimised(loss):
    for name, value in loss(*batch(loss, N)).items():
        assert name.startswith(('loss_', 'kd/'))
        optimised = 'loss' in name
        assert name.startswith('loss_') == optimised == value.requires_grad


def test_gradient_reaches_the_student_only(loss):
    student, teacher, labels = batch(loss, N)
    teacher.requires_grad_()
    total(loss(student, teacher, labels)).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_gradcheck(loss):
    student, teacher, labels = batch(loss, 3, classes=5)
    assert gradcheck(
        lambda values: total(loss(values, teacher, labels)), (student,)
    )


def test_weights_0_and_1_equal_slicing(loss):
    student, teacher, labels = batch(loss, N)
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    kept = of_samples(loss, weight > 0)
    torch.testing.assert_close(
        total(loss(student, teacher, labels, in_views(loss, weight))),
        total(loss(student[kept], teacher[kept], labels[kept])),
    )


def test_scale_of_the_weights_does_not_matter(loss):
    student, teacher, labels = batch(loss, N)
    weight = in_views(loss, torch.rand(N, dtype=torch.float64))
    torch.testing.assert_close(
        total(loss(student, teacher, labels, weight)),
        total(loss(student, teacher, labels, 7 * weight)),
    )


@pytest.mark.parametrize('factor', [1e-36, 1e36])
def test_products_of_weights_stay_in_the_range(loss, factor):
    student, teacher, labels = batch(loss, N, dtype=torch.float32)
    student, weight = 1e4 * student.detach(), in_views(loss, torch.ones(N))
    torch.testing.assert_close(
        total(loss(student, teacher, labels, factor * weight)),
        total(loss(student, teacher, labels)),
    )


def test_weight_0_hides_even_nan(loss):
    student, teacher, labels = batch(loss, N)
    first = of_samples(loss, 0)
    with torch.no_grad():
        student[first] = torch.nan
    weight = in_views(loss, torch.ones(N))
    weight[first] = 0
    value = total(loss(student, teacher, labels, weight))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
    assert (student.grad[first] == 0).all()


def test_nothing_selected_gives_0_and_no_gradient(loss):
    student, teacher, labels = batch(loss, N)
    terms = loss(student, teacher, labels, in_views(loss, torch.zeros(N)))
    total(terms).backward()
    assert total(terms) == 0
    assert (student.grad == 0).all()


def test_no_samples_give_the_same_keys_and_0(loss):
    student, teacher, labels = batch(loss, 0)
    terms = loss(student, teacher, labels)
    assert set(terms) == set(loss(*batch(loss, N)))
    assert total(terms) == 0
    total(terms).backward()
    # DistributedDataParallel waits for every parameter's gradient.
    for parameter in loss.parameters():
        assert (parameter.grad == 0).all()


def test_one_sample_is_enough(loss):
    student, teacher, labels = batch(loss, 1)
    value = total(loss(student, teacher, labels))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_leading_dimensions_are_samples(loss):
    student, teacher, labels = batch(loss, 2, 3)
    weight = in_views(loss, torch.rand(2, 3))
    first = 0 if loss.views == 1 else 1
    flat = [
        values.flatten(first, first + 1)
        for values in (student, teacher, labels, weight)
    ]
    torch.testing.assert_close(
        total(loss(student, teacher, labels, weight)), total(loss(*flat))
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_logits_are_computed_in_float32(loss, dtype):
    student, teacher, labels = batch(loss, N, dtype=dtype)
    value = total(loss(student, teacher, labels))
    assert value.dtype == torch.float32
    value.backward()
    assert student.grad.dtype == dtype
    exact = student.detach().float().requires_grad_()
    expected = total(loss(exact, teacher.float(), labels))
    expected.backward()
    torch.testing.assert_close(value, expected)
    # The gradient is rounded once, to the dtype of the logits.
    rounding = (
        torch.finfo(dtype).eps * exact.grad.abs()
        + torch.finfo(dtype).smallest_normal
    )
    assert ((student.grad.float() - exact.grad).abs() <= rounding).all()


def test_autocast_changes_nothing(loss):
    student, teacher, labels = batch(loss, N, dtype=torch.float32)
    outside = total(loss(student, teacher, labels))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = total(loss(student, teacher, labels))
    assert torch.equal(outside, inside)


@pytest.mark.parametrize('magnitude', [1e4, 3e4])
def test_huge_logits_stay_finite(loss, magnitude):
    student, teacher, labels = batch(loss, N, dtype=torch.float32)
    student = (student.detach() * magnitude).requires_grad_()
    value = total(loss(student, teacher * magnitude, labels))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_nan_shows(loss, side):
    """No comparison, sort or mask may turn it into a number."""
    student, teacher, labels = batch(loss, N)
    spoiled = (student if side == 'student' else teacher).detach()
    spoiled[..., 2, 3] = torch.nan
    # Sure enough of the sample for any loss that selects.
    if side == 'student':
        teacher[..., 2, 0] = 50.0
    assert total(loss(student, teacher, labels)).isnan()


def ruled_out(loss, value, *, student_too=False):
    """A batch whose teacher gives two classes a logit, one a label."""
    student, teacher, labels = batch(loss, N)
    teacher[..., 2, 3] = teacher[..., 4, 0] = value
    labels[..., 4] = 0
    if student_too:
        student = student.detach()
        student[..., 2, 3] = value
        student.requires_grad_()
    terms = loss(student, teacher, labels)
    leaves = (student, *loss.parameters())
    return terms, torch.autograd.grad(total(terms), leaves)


@pytest.mark.parametrize('student_too', [False, True])
@pytest.mark.parametrize('name', sorted(set(LOSSES) - OF_FINITE_LOGITS))
def test_a_class_that_the_teacher_rules_out(name, student_too):
    """-inf is the limit of logits far below all others."""
    terms, gradients = ruled_out(
        LOSSES[name](), -torch.inf, student_too=student_too
    )
    expected, slopes = ruled_out(LOSSES[name](), -1e5, student_too=student_too)
    torch.testing.assert_close(terms, expected)
    torch.testing.assert_close(gradients, slopes)


@pytest.mark.parametrize('name', sorted(OF_FINITE_LOGITS))
def test_a_ranking_with_a_class_ruled_out_is_nan_and_says_so(name):
    terms, _ = ruled_out(LOSSES[name](), -torch.inf)
    assert total(terms).isnan()
    assert '-inf' in ' '.join(LOSSES[name].__doc__.split())


def test_constant_student_stays_finite(loss):
    _, teacher, labels = batch(loss, N, dtype=torch.float32)
    student = torch.full_like(teacher, 0.1).requires_grad_()
    value = total(loss(student, teacher, labels))
    value.backward()
    assert value.isfinite()
    # KL at T = 4 has gradients up to T / N; nothing may be far beyond.
    assert student.grad.abs().max() < 10


def test_errors(loss):
    student, teacher, labels = batch(loss, N)
    ones = in_views(loss, torch.ones(N))
    with pytest.raises(TypeError, match='teacher_logits must be a floating'):
        loss(student, teacher.long(), labels)
    with pytest.raises(TypeError, match='teacher_logits must be .* NoneType'):
        loss(student)
    with pytest.raises(ValueError, match=r'same shape, got \(.*10\) and'):
        loss(student, teacher[..., :-1], labels)
    with pytest.raises(ValueError, match='labels must have one value'):
        loss(student, teacher, labels[..., :-1])
    with pytest.raises(ValueError, match='weight must have one value'):
        loss(student, teacher, labels, ones[..., None])
    with pytest.raises(ValueError, match='weight must be finite and >= 0'):
        loss(student, teacher, labels, -ones)
    with pytest.raises(ValueError, match='weight must be finite and >= 0'):
        loss(student, teacher, labels, torch.nan * ones)


def test_labels_are_asked_for_where_needed(loss_of_labels):
    student, teacher, _ = batch(loss_of_labels, N)
    name = type(loss_of_labels).__name__
    with pytest.raises(ValueError, match=f'{name} needs labels, got None'):
        loss_of_labels(student, teacher)


@pytest.mark.parametrize('label', [-1, C, 255])
def test_labels_out_of_range_are_refused(loss_of_labels, label):
    student, teacher, labels = batch(loss_of_labels, N)
    labels[of_samples(loss_of_labels, 2)] = label
    with pytest.raises(
        ValueError, match=rf'labels must be .* in \[0, 9\], got .*{label}'
    ):
        loss_of_labels(student, teacher, labels)


def test_number_of_views_is_checked(loss_of_views):
    student, teacher, _ = batch(loss_of_views, N)
    for views in (slice(1), 0):
        with pytest.raises(ValueError, match=r'2 views of each image, logits'):
            loss_of_views(student[views], teacher[views])
    three = torch.randn(3, N, C)
    with pytest.raises(ValueError, match=r'\(2, N, C\), got \(3, 6, 10\)'):
        loss_of_views(three, three)


def test_labels_and_weights_of_later_views_are_not_used(loss_of_views):
    student, teacher, labels = batch(loss_of_views, N)
    weight = torch.rand(loss_of_views.views, N)
    terms = loss_of_views(student, teacher, labels, weight)
    labels[1:], weight[1:] = -7, 0.25
    assert terms == loss_of_views(student, teacher, labels, weight)


class _ViewsAndLabels(LogitLoss):
    views = 2
    needs_labels = True

    def per_sample(self, student_logits, teacher_logits, labels):
        # Student's logit of the target in view 0 plus 100 times in view 1.
        picked = student_logits.gather(
            -1, labels[:, None, None].expand(-1, 2, 1)
        ).squeeze(-1)
        return dict(loss_probe=picked[:, 0] + 100 * picked[:, 1])


def test_the_first_view_says_label_and_weight_of_a_sample():
    student = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5, 6], [7, 8]]])
    labels = torch.tensor([[0, 1], [99, -1]])
    weight = torch.tensor([[3.0, 1.0], [0.0, 5.0]])
    loss = _ViewsAndLabels()
    terms = loss(student, student, labels, weight)
    assert terms['loss_probe'] == (3 * (1 + 500) + 1 * (4 + 800)) / 4
    with pytest.raises(ValueError, match='needs labels, got None'):
        loss(student, student)
    with pytest.raises(ValueError, match=r'in \[0, 1\], got values in'):
        loss(student, student, labels.flip(0))


def test_both_views_get_gradient(loss_of_views):
    student, teacher, labels = batch(loss_of_views, N)
    total(loss_of_views(student, teacher, labels)).backward()
    assert (student.grad.abs().sum((1, 2)) > 0).all()


@pytest.mark.parametrize(
    'name', sorted(set(LOSSES) - {'RankKDLoss', 'KendallLoss'})
)
def test_ranking_on_top_is_the_ranking_loss_of_the_same_batch(name):
    """Views of an image are samples of its mean, as they are for it alone."""
    kd = LOSSES[name]()
    student, teacher, labels = batch(kd, N)
    loss = RankKDLoss(kd=kd, kd_weight=0.5, rank_weight=0.25)
    terms = loss(student, teacher, labels)
    for key, value in kd(student, teacher, labels).items():
        factor = 0.5 if 'loss' in key else 1
        torch.testing.assert_close(terms.pop(key), factor * value)
    expected = KendallLoss(rank_weight=0.25)(student, teacher)
    torch.testing.assert_close(terms, expected)


@pytest.mark.parametrize('name,argument', WEIGHTS)
def test_every_weight_may_be_a_schedule(name, argument):
    scheduled = LOSSES[name](**{argument: dict(type='linear', end=4)})
    data = batch(scheduled, N)
    for epoch, weight in [(1, 0.25), (3, 0.75), (9, 1.0)]:
        set_progress(scheduled, Progress(epoch=epoch))
        constant = LOSSES[name](**{argument: weight})
        set_progress(constant, Progress(epoch=epoch))
        torch.testing.assert_close(scheduled(*data), constant(*data))


@pytest.mark.parametrize('name,argument', WEIGHTS)
@pytest.mark.parametrize('value', [-1, '1', dict(type='linear', end=0)])
def test_a_wrong_weight_is_named(name, argument, value):
    with pytest.raises(ValueError, match=f'^{argument}(=| must be)'):
        LOSSES[name](**{argument: value})


@pytest.mark.parametrize('name,argument', OPTIONS)
@pytest.mark.filterwarnings('ignore:.*loss_weight:FutureWarning')
def test_a_wrong_option_is_refused_when_built(name, argument):
    """Not at the first step, after everything was loaded."""
    with pytest.raises((TypeError, ValueError, KeyError)):
        LOSSES[name](**{argument: 'magic'})


def test_settings_are_printable(loss):
    assert type(loss).__name__ in repr(loss)
    assert 'weight=' in repr(loss)


def test_leaves_nothing_in_the_state_dict(loss):
    """What a loss learns is saved; its settings are not."""
    assert set(loss.state_dict()) == {
        name for name, _ in loss.named_parameters()
    }


@pytest.mark.parametrize('name', LOSSES)
def test_a_teacher_of_inference_mode(name):
    loss = LOSSES[name]()
    torch.manual_seed(0)
    shape = (loss.views, 4, 5) if loss.views > 1 else (4, 5)
    student = torch.randn(shape)
    with torch.inference_mode():
        teacher = torch.randn(shape)
    labels = torch.randint(5, shape[:-1]) if loss.needs_labels else None
    slopes = []
    for other in (teacher, teacher.clone()):
        leaf = student.clone().requires_grad_()
        terms = loss(leaf, other, labels)
        sum(v for k, v in terms.items() if 'loss' in k).backward()
        slopes.append(leaf.grad)
    assert torch.equal(*slopes)


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('labels', torch.rand(4), 'int64, got a tensor of torch.float32'),
        ('labels', torch.ones(4) > 0, 'int64, got a tensor of torch.bool'),
        ('labels', [0, 1, 2, 0], 'labels must be a tensor .* got list'),
        ('weight', [1.0] * 4, 'weight must be a tensor .* got list'),
        ('weight', torch.full((4,), 1e38), 'sum of all weights must be fin'),
        ('normalizer', 0, 'normalizer must be a finite number > 0, got 0'),
        ('normalizer', -1.0, 'normalizer must be a finite number > 0'),
    ],
)
def test_bad_input_is_named(option, value, message):
    given = dict(labels=torch.zeros(4, dtype=torch.long))
    given[option] = value
    with pytest.raises((TypeError, ValueError), match=message):
        DKDLoss()(torch.randn(4, 5), torch.randn(4, 5), **given)


def test_numbers_of_numpy_are_numbers():
    assert KDLoss(temperature=np.float32(2)).temperature == 2
    with pytest.raises(ValueError, match='at most 1e.18, whose square'):
        KDLoss(temperature=1e200)


@pytest.mark.parametrize('name', ['KDLoss', 'BinaryKDLoss', 'KendallLoss'])
def test_a_loss_compiles_to_one_graph(name):
    torch._dynamo.reset()
    loss = LOSSES[name]()
    key = next(
        key
        for key in loss(torch.randn(4, 5), torch.randn(4, 5))
        if 'loss' in key
    )
    compiled = torch.compile(
        lambda s, t: loss(s, t)[key], fullgraph=True, backend='aot_eager'
    )
    student, teacher = torch.randn(2, 4, 5)
    leaf, again = (student.clone().requires_grad_() for _ in range(2))
    compiled(leaf, teacher).backward()
    loss(again, teacher)[key].backward()
    torch.testing.assert_close(leaf.grad, again.grad)


def test_half_precision_weights_add_up_beyond_half_precision(monkeypatch):
    student, teacher = torch.randn(2, 70_000, 2)
    weight = torch.ones(70_000)
    for loss in (KDLoss(), BinaryKDLoss()):
        for large in (2**30, 8):
            monkeypatch.setattr(base, 'LARGE', large)
            values = [
                sum(loss(student, teacher, None, each).values())
                for each in (weight, weight.half())
            ]
            torch.testing.assert_close(*values, rtol=1e-3, atol=0)
            assert values[1] > 0


def test_everything_may_be_of_inference_mode():
    student = torch.randn(4, 5, requires_grad=True)
    with torch.inference_mode():
        teacher, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
        weight, normalizer = torch.rand(4), torch.tensor(2.0)
    terms = DKDLoss()(student, teacher, labels, weight, normalizer)
    sum(terms.values()).backward()
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize('normalizer', [np.float32(0), np.int64(-2)])
def test_normalizers_of_numpy_are_looked_at_too(normalizer):
    with pytest.raises(ValueError, match='normalizer must be .*> 0'):
        KDLoss()(torch.randn(4, 5), torch.randn(4, 5), normalizer=normalizer)
