"""The C code of rows beside the equations that it stands for."""

import pytest
import torch

from mmrkkd.losses import BinaryKDLoss
from mmrkkd.losses.binary_kd import LOWEST
from mmrkkd.losses.list_mle import surprise_of
from mmrkkd.ops import kl_divergence, pearson
from mmrkkd.ops.backends.cpu.native_library import native_library
from mmrkkd.ops.backends.native_rows import (
    VALUES_WORTH_THREADS,
    paired_rows,
    surprise_rows,
)

pytestmark = pytest.mark.skipif(
    native_library() is None, reason='no C compiler'
)
INF = float('inf')
NAN = float('nan')


def binary_kd(student, teacher, dim):
    loss = BinaryKDLoss()
    rows = [each.movedim(dim, -1) for each in (student, teacher)]
    flat = [each.reshape(-1, each.shape[-1]) for each in rows]
    values = loss.per_sample(*flat, None)['loss_binary_kd']
    return values.reshape(rows[0].shape[:-1])


WAYS = {
    'binary_kd': (binary_kd, LOWEST),
    'kl_divergence': (lambda s, t, dim: kl_divergence(s, t, 2.5), 2.5),
    'pearson': (lambda s, t, dim: pearson(s, t, dim), 1e-8),
}
# Half a unit in the last place of float32, and what sums in double lose.
ROUNDING = 2**-24 * (1 + 1e-6)


def equation(name, student, teacher, dim=-1):
    """The value and its gradient, in float64 by PyTorch."""
    student = student.double().requires_grad_()
    value = WAYS[name][0](student, teacher.double(), dim)
    (slopes,) = torch.autograd.grad(value.sum(), student)
    return value.detach(), slopes


def rows_of(shape, spread=3.0):
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(2, *shape, generator=generator)


@pytest.mark.parametrize('name', WAYS)
@pytest.mark.parametrize('length', [2, 3, 7, 8, 9, 16, 17, 100, 1001])
def test_it_is_the_equation_rounded_once(name, length):
    student, teacher = rows_of((5, length))
    value, slopes = paired_rows(name, student, teacher, WAYS[name][1])
    exact, gradient = equation(name, student, teacher)
    torch.testing.assert_close(
        value.double(), exact, rtol=ROUNDING, atol=1e-13
    )
    torch.testing.assert_close(
        slopes.double(), gradient, rtol=ROUNDING, atol=1e-13
    )


@pytest.mark.parametrize('name', WAYS)
def test_a_row_may_lie_along_any_dimension(name):
    student, teacher = rows_of((4, 6, 5))
    for dim in (-1, -2, -3):
        value, slopes = paired_rows(name, student, teacher, WAYS[name][1], dim)
        last = [each.movedim(dim, -1) for each in (student, teacher)]
        exact, gradient = equation(name, *last)
        assert slopes.shape == student.shape
        torch.testing.assert_close(value, exact.float())
        torch.testing.assert_close(slopes.movedim(dim, -1), gradient.float())


@pytest.mark.parametrize('name', WAYS)
def test_threads_share_the_rows(name):
    student, teacher = rows_of((VALUES_WORTH_THREADS // 100 + 7, 100))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(paired_rows(name, student, teacher, 1.0))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize(
    ('student', 'teacher', 'value', 'slopes'),
    [
        # The teacher rules a class out: 0 times whatever the student says.
        ([0, 0, -INF], [0, 0, -INF], 0, [0, 0, 0]),
        ([0, 0, 0], [0, 0, -INF], 0.40546510810816, [-1 / 6, -1 / 6, 1 / 3]),
        # The student does.
        ([0, 0, -INF], [0, 0, 0], INF, [1 / 6, 1 / 6, -1 / 3]),
        # Far apart: one class is sure, to the last place.
        ([0, -1e4, 0], [0, -1e4, -1e30], 0.69314718055995, [-0.5, 0, 0.5]),
        ([NAN, 0, 0], [0, 0, 0], NAN, [NAN] * 3),
        ([INF, 0, 0], [0, 0, 0], NAN, [NAN] * 3),
        ([-INF] * 3, [0, 0, 0], NAN, [NAN] * 3),
    ],
)
def test_divergence_at_the_limits(student, teacher, value, slopes):
    student, teacher = torch.tensor([student, teacher], dtype=torch.float32)
    found = paired_rows('kl_divergence', student, teacher, 1.0)
    for result, expected in zip(found, (value, slopes), strict=True):
        expected = torch.tensor(expected, dtype=torch.float32)
        torch.testing.assert_close(
            result, expected, rtol=2e-7, atol=0, equal_nan=True
        )


@pytest.mark.parametrize(
    ('student', 'value'),
    [
        ([1, 1, 1], 0),
        # Differs by rounding.
        ([1, 1 + 2**-23, 1], 0),
        # Squares that a float does not hold.
        ([1e-30, 2e-30, 5e-30], 0),
        ([1e38, 2e38, 3e38], 1),
        ([1, NAN, 2], NAN),
        ([1, INF, 2], NAN),
    ],
)
def test_correlation_at_the_limits(student, value):
    student = torch.tensor(student, dtype=torch.float32)
    found, slopes = paired_rows('pearson', student, torch.arange(3.0), 1e-8)
    if value == value:
        torch.testing.assert_close(found, torch.tensor(float(value)))
        # Where nothing varies, and at the maximum.
        assert slopes.abs().max() <= 1e-37
    else:
        assert found.isnan() and slopes.isnan().all()


@pytest.mark.parametrize(
    ('student', 'teacher', 'value', 'slope'),
    [
        # |d| = 1/4 times log(1 + e^0); d^2 and a quarter of E.
        (0, -1.0986122886681098, 0.1732867951399863, 0.23578679513998),
        # Nearly agreed: 1e-9 times 20, and its slope.
        (-20, -INF, 4.248354e-18, 8.4967e-18),
        (-INF, -INF, 0, 0),
        # Taken for -1e5, and out of reach of any gradient.
        (-INF, INF, 1e5, 0),
        (-2e5, 0, 2.5e4, 0),
        (-1e5, 0, 2.5e4, -0.25),
        # As by PyTorch: 0 times infinity.
        (INF, -INF, INF, NAN),
        (200, -200, 200, 1),
        (NAN, 0, NAN, NAN),
        (0, NAN, NAN, NAN),
    ],
)
def test_binary_kd_at_the_limits(student, teacher, value, slope):
    pair = torch.tensor([[[student]], [[teacher]]], dtype=torch.float32)
    found = paired_rows('binary_kd', *pair, LOWEST)
    expected = torch.tensor([value, slope], dtype=torch.float32)
    torch.testing.assert_close(
        torch.cat([each.flatten() for each in found]),
        expected,
        rtol=1e-6,
        atol=0,
        equal_nan=True,
    )


@pytest.mark.parametrize('name', WAYS)
def test_what_the_c_code_does_not_know_is_left_to_pytorch(name):
    student, teacher = rows_of((4, 3))
    assert paired_rows(name, student.double(), teacher.double(), 1.0) is None
    assert paired_rows(name, student.half(), teacher.half(), 1.0) is None
    assert paired_rows(name, student, teacher, torch.tensor(1.0)) is None
    # PyTorch says what goes together; C would read what is not there.
    assert paired_rows(name, student, teacher[:1], 1.0) is None
    assert paired_rows(name, student, teacher[0], 1.0) is None
    assert paired_rows(name, student[:0], teacher[:0], 1.0) is None
    meta = torch.empty(4, 3, device='meta')
    assert paired_rows(name, meta, meta, 1.0) is None
    with torch._subclasses.FakeTensorMode() as mode:
        fake = mode.from_tensor(student)
        assert paired_rows(name, fake, fake, 1.0) is None


@pytest.mark.parametrize('name', WAYS)
def test_the_loss_takes_it_and_pytorch_gives_the_same(name, monkeypatch):
    student, teacher = rows_of((8, 50))
    results = []
    for switch in ('1', '0'):
        monkeypatch.setenv('MMRKKD_NATIVE', switch)
        native_library.cache_clear()
        logits = student.clone().requires_grad_()
        value = WAYS[name][0](logits, teacher, -1)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        results.append((value.detach(), gradient))
    monkeypatch.undo()
    native_library.cache_clear()
    # Two codes: some last place differs.
    assert not all(map(torch.equal, *results))
    for native, torch_only in zip(*results, strict=True):
        torch.testing.assert_close(native, torch_only, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('length', [2, 7, 8, 9, 100, 1001])
def test_surprise_is_the_equation_rounded_once(length, weighted):
    scores, teacher = rows_of((5, length))
    order = teacher.argsort(dim=-1)
    weight = teacher.softmax(-1).gather(-1, order) if weighted else None
    value, slopes = surprise_rows(scores, order, weight, -1e30)
    wide = scores.double().requires_grad_()
    exact = surprise_of(wide, order, weight)
    (gradient,) = torch.autograd.grad(exact.sum(), wide)
    # The logarithm is good to 1e-13 of what it is taken of.
    rounding = dict(rtol=ROUNDING, atol=1e-12)
    torch.testing.assert_close(value.double(), exact.detach(), **rounding)
    torch.testing.assert_close(slopes.double(), gradient, **rounding)


@pytest.mark.parametrize(
    ('scores', 'value', 'slopes'),
    [
        # Three equal: log 3!, and 1/3 - 1, 1/3 + 1/2 - 1, 1/3 + 1/2 + 1 - 1.
        ([0, 0, 0], 1.791759469228055, [-2 / 3, -1 / 6, 5 / 6]),
        # What is ruled out adds its distance, and has no slope.
        ([-1e30, -1e30, -1e30], 1.791759469228055, [0, 0, 0]),
        ([-INF, -INF, -INF], 1.791759469228055, [0, 0, 0]),
        # The widest that the code is for: 590 and 590 to the one that is
        # likely, and 0.
        ([-590, -590, 0], 1180, [-1, -1, 2]),
        ([NAN, 0, 0], NAN, [NAN, NAN, NAN]),
    ],
)
def test_surprise_at_the_limits(scores, value, slopes):
    order = torch.arange(3).unsqueeze(0)
    scores = torch.tensor([scores], dtype=torch.float32)
    found, gradient = surprise_rows(scores, order, None, -1e30)
    expected = torch.tensor([value, *slopes], dtype=torch.float32)
    torch.testing.assert_close(
        torch.cat([found, gradient[0]]), expected, equal_nan=True
    )


def test_surprise_of_rows_of_any_spread_does_not_depend_on_the_others():
    scores, teacher = rows_of((4, 20))
    order = teacher.argsort(dim=-1)
    alone = surprise_of(scores, order)
    # A row whose exponentials do not fit is of another kind.
    far = torch.cat([scores, 1e4 * scores[:1]])
    among = surprise_of(far, torch.cat([order, order[:1]]))
    assert torch.equal(among[:4], alone)
    exact = surprise_of(far[4:].double(), order[:1])
    torch.testing.assert_close(among[4:], exact.float())


def test_surprise_knows_its_shapes_and_types():
    scores, teacher = rows_of((4, 3))
    order = teacher.argsort(dim=-1)
    assert surprise_rows(scores, order[:2], None, -1e30) is None
    assert surprise_rows(scores, order.int(), None, -1e30) is None
    assert surprise_rows(scores, order, teacher[:2], -1e30) is None
    assert surprise_rows(scores, order, None, -1e30) is not None


@pytest.mark.parametrize('name', WAYS)
def test_what_new_tensors_are_by_default_changes_nothing(name):
    student, teacher = rows_of((4, 3))
    expected = paired_rows(name, student, teacher, 1.0)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device('meta'):
            found = paired_rows(name, student, teacher, 1.0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))
