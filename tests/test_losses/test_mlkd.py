"""Three levels, five temperatures, two views, against arithmetic."""

import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mmrkkd.losses import LSKDLoss, MLKDLoss, Progress, set_progress
from mmrkkd.losses.mlkd import _not_above_median

TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)
KEYS = ['loss_mlkd_instance', 'loss_mlkd_batch', 'loss_mlkd_class']


def views(samples, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        2 * torch.randn(2, 2, samples, classes, generator=generator).double()
    ).unbind(0)
    return student.requires_grad_(), teacher


def median(values):
    values, half = sorted(values), len(values) // 2
    if len(values) % 2:
        return values[half]
    return (values[half - 1] + values[half]) / 2


def chosen(values):
    return [value <= median(values) for value in values]


def kd(student, teacher, t):
    """T^2 KL of each sample."""
    p_t = (teacher / t).softmax(-1)
    return t * t * (p_t * (p_t.log() - (student / t).log_softmax(-1))).sum(-1)


def gram_difference(student, teacher, t):
    """Squared entries, before the division by the number of rows."""
    p_s, p_t = (student / t).softmax(-1), (teacher / t).softmax(-1)
    products = [(a[:, None, :] * a[None, :, :]).sum(-1) for a in (p_s, p_t)]
    transposed = [
        (a.T[:, None, :] * a.T[None, :, :]).sum(-1) for a in (p_s, p_t)
    ]
    return (
        (products[0] - products[1]) ** 2,
        (transposed[0] - transposed[1]) ** 2,
    )


def released(student, teacher):
    """The instance, batch and class term that the public code adds up."""
    (s_w, s_s), (t_w, t_s) = student, teacher
    n, c = s_w.shape
    probabilities = t_w.softmax(-1)
    samples = chosen(probabilities.max(-1).values.tolist())
    classes = chosen(probabilities.sum(0).tolist())
    instance = batch = by_class = 0.0
    for t in TEMPERATURES:
        instance += kd(s_w, t_w, t).mean() * sum(samples) / n
        bc, cc = gram_difference(s_w, t_w, t)
        batch += bc.sum() / n * sum(samples) / n
        by_class += cc.sum() / c * sum(classes) / c
    for t in (4.0, 3.0, 5.0):
        instance += kd(s_s, t_s, t).mean()
    for t in (2.0, 6.0):
        instance += kd(s_w, t_w, t).mean()
    return dict(zip(KEYS, (instance, batch, by_class)))


def mended(student, teacher):
    (s_w, s_s), (t_w, t_s) = student, teacher
    n, c = s_w.shape
    probabilities = t_w.softmax(-1)
    samples = chosen(probabilities.max(-1).values.tolist())
    classes = chosen(probabilities.sum(0).tolist())
    instance = batch = by_class = 0.0
    for t in TEMPERATURES:
        instance += kd(s_w, t_w, t)[samples].sum() / n
        instance += kd(s_s, t_s, t).mean()
        bc, cc = gram_difference(s_w, t_w, t)
        batch += bc[samples].sum() / n
        by_class += cc[classes].sum() / c
        bc, cc = gram_difference(s_s, t_s, t)
        batch += bc[samples].sum() / n
        by_class += cc.sum() / c
    return dict(zip(KEYS, (instance, batch, by_class)))


def test_two_samples_and_two_classes_by_hand():
    # Huge logits: the teacher's P is the unit matrix at every temperature,
    # the weak student's has 1/2 everywhere, the strong student is right.
    right = 1e5 * torch.eye(2).double()
    student = torch.stack([torch.zeros(2, 2).double(), right])
    terms = MLKDLoss()(student, torch.stack([right, right]))
    assert list(terms) == KEYS
    # KL = log 2, and the sum of T^2 is 90, of which 2 and 6 have 40; all
    # confidences are equal, so that all are chosen.
    assert terms['loss_mlkd_instance'].item() == pytest.approx(
        (90 + 40) * math.log(2)
    )
    # P_t P_t' - P_s P_s' = [[.5, -.5], [-.5, .5]], squares add up to 1
    for key in KEYS[1:]:
        assert terms[key].item() == pytest.approx(5 * 1 / 2)


@pytest.mark.parametrize('samples', [1, 2, 7, 8])
@pytest.mark.parametrize('classes', [2, 5, 6])
def test_released_arithmetic(samples, classes):
    data = views(samples, classes)
    torch.testing.assert_close(MLKDLoss()(*data), released(*data))


@pytest.mark.parametrize('samples', [1, 2, 7, 8])
@pytest.mark.parametrize('classes', [2, 5, 6])
def test_mended_arithmetic(samples, classes):
    data = views(samples, classes)
    torch.testing.assert_close(MLKDLoss(mend_slips=True)(*data), mended(*data))


@pytest.mark.parametrize('mend,oracle', [(False, released), (True, mended)])
@pytest.mark.parametrize('samples,classes', [(6, 5), (2, 33)])
def test_gradients_are_those_of_the_arithmetic(mend, oracle, samples, classes):
    student, teacher = views(samples, classes)
    gradients = [
        torch.autograd.grad(sum(function(student, teacher).values()), student)
        for function in (MLKDLoss(mend_slips=mend), oracle)
    ]
    torch.testing.assert_close(*gradients)


def test_a_student_equal_to_its_teacher_has_loss_0():
    _, teacher = views(6, 5)
    for mend in (False, True):
        terms = MLKDLoss(mend_slips=mend)(teacher.clone(), teacher)
        assert sum(terms.values()).item() == pytest.approx(0, abs=1e-12)


def strong_gradient(key, **settings):
    student, teacher = views(6, 5)
    MLKDLoss(**settings)(student, teacher)[key].backward()
    return student.grad[1]


@pytest.mark.parametrize('key', KEYS[1:])
def test_strong_batch_and_class_terms_count_only_if_mended(key):
    assert (strong_gradient(key) == 0).all()
    assert (strong_gradient(key, mend_slips=True) != 0).all()


def test_the_strong_view_at_2_and_6_counts_only_if_mended():
    key = 'loss_mlkd_instance'
    three = strong_gradient(key, temperatures=(4, 3, 5))
    torch.testing.assert_close(strong_gradient(key), three)
    rest = strong_gradient(key, temperatures=(2, 6))
    torch.testing.assert_close(
        strong_gradient(key, mend_slips=True), three + rest
    )


def test_masks_choose_samples_only_if_mended():
    student, teacher = views(6, 5)
    confidence = teacher[0].softmax(-1).amax(-1)
    sure = confidence > confidence.sort().values[2:4].mean()
    assert sure.sum() == 3
    for mend in (False, True):
        term = MLKDLoss(mend_slips=mend)(student, teacher)[KEYS[0]]
        (gradient,) = torch.autograd.grad(term, student)
        assert (gradient[0, ~sure] != 0).all()
        assert (gradient[0, sure] == 0).all() == mend


def test_the_median_of_an_even_number_is_the_midpoint():
    for values, expected in [
        ([3.0, 1.0, 2.0], [False, True, True]),
        ([4.0, 1.0, 2.0, 3.0], [False, True, True, False]),
        ([1.0, 1.0, 1.0, 1.0], [True] * 4),
        ([5.0], [True]),
        ([], []),
    ]:
        assert _not_above_median(torch.tensor(values)).tolist() == expected


@pytest.mark.parametrize('mend', [False, True])
def test_standardised_are_the_instance_terms_only(mend):
    data = views(6, 5)
    terms = MLKDLoss(standardize=True, mend_slips=mend)(*data)
    plain = MLKDLoss(mend_slips=mend)(*data)
    for key in KEYS[1:]:
        torch.testing.assert_close(terms[key], plain[key])
    standard = [
        (value - value.mean(-1, keepdim=True))
        / (value.std(-1, keepdim=True) + 1e-7)
        for value in data
    ]
    (s_w, s_s), (t_w, t_s) = standard
    # Samples are chosen by the plain logits of the teacher.
    picked = torch.tensor(chosen(data[1][0].softmax(-1).amax(-1).tolist()))
    expected = 0.0
    for index, t in enumerate(TEMPERATURES):
        weak, strong = kd(s_w, t_w, t), kd(s_s, t_s, t)
        if mend:
            expected += (weak * picked).mean() + strong.mean()
        else:
            expected += weak.mean() / 2
            expected += (strong if index < 3 else weak).mean()
    torch.testing.assert_close(terms[KEYS[0]], expected)


def test_wrapping_standardises_everything():
    data = views(6, 5)
    wrapped = LSKDLoss(kd=MLKDLoss())(*data)
    assert wrapped['loss_mlkd_batch'] != MLKDLoss()(*data)['loss_mlkd_batch']


def test_sample_weights_enter_the_instance_term_only():
    student, teacher = views(4, 5)
    weight = torch.tensor([3.0, 1.0, 1.0, 1.0]).expand(2, 4)
    plain = MLKDLoss()(student, teacher)
    terms = MLKDLoss()(student, teacher, None, weight)
    assert terms[KEYS[0]] != plain[KEYS[0]]
    for key in KEYS[1:]:
        torch.testing.assert_close(terms[key], plain[key])


def test_samples_left_out_are_in_no_term():
    student, teacher = views(6, 5)
    weight = torch.tensor([1.0, 1, 0, 1, 0, 1]).expand(2, 6)
    kept = weight[0] > 0
    torch.testing.assert_close(
        MLKDLoss()(student, teacher, None, weight),
        released(student[:, kept], teacher[:, kept]),
    )


def test_one_weight_for_all_levels_that_may_be_a_schedule():
    data = views(6, 5)
    loss = MLKDLoss(loss_weight=dict(type='linear', stop=0.9, end=10))
    set_progress(loss, Progress(epoch=5))
    expected = {key: 0.45 * value for key, value in MLKDLoss()(*data).items()}
    torch.testing.assert_close(loss(*data), expected)


@pytest.mark.parametrize('mend', [False, True])
def test_no_samples(mend):
    student = torch.zeros(2, 0, 5, requires_grad=True)
    terms = MLKDLoss(mend_slips=mend)(student, torch.zeros(2, 0, 5))
    assert list(terms) == KEYS
    assert all(value == 0 for value in terms.values())
    sum(terms.values()).backward()


def test_a_thousand_classes_stay_finite():
    student, teacher = views(16, 1000)
    student = student.detach().float().requires_grad_()
    terms = MLKDLoss()(student, teacher.float())
    torch.testing.assert_close(
        {key: value.double() for key, value in terms.items()},
        released(student.double(), teacher.float().double()),
        rtol=1e-5,
        atol=0,
    )
    sum(terms.values()).backward()
    assert student.grad.isfinite().all()


def test_very_many_classes_take_no_matrix_of_their_own():
    student, teacher = views(4, 3000)
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as profiled:
        MLKDLoss()(student, teacher)['loss_mlkd_class'].backward()
    most = max(event.cpu_memory_usage for event in profiled.events())
    assert most < 3000 * 3000


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(temperatures=()), r'temperatures must be a list .* got \(\)'),
        (dict(temperatures=4.0), 'temperatures must be a list .* got 4.0'),
        (dict(temperatures=(4, 0)), 'each of temperatures must be .* got 0'),
        (dict(loss_weight=-1), 'loss_weight must be .* got -1'),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        MLKDLoss(**change)


def test_shares_are_as_precise_as_the_logits():
    # 2 of 3 samples, 3 of 5 classes: neither is a float32 number.
    student, teacher = views(3, 5)
    terms = MLKDLoss()(student, teacher)
    torch.testing.assert_close(
        terms, released(student, teacher), rtol=1e-13, atol=0
    )
