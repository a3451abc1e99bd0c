"""RKD: distances and angles between the images of a batch."""

import pytest
import torch

import mmrkkd.losses.feature.rkd as module
from mmrkkd.losses import RKDLoss
from mmrkkd.losses.feature import FeaturePair

TEACHER = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
STUDENT = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def terms(student, teacher, **options):
    return RKDLoss('a', **options)(FeaturePair([student], [teacher]))


def test_golden_value():
    found = terms(STUDENT, TEACHER, distance_weight=1.0, angle_weight=1.0)
    # Distances over their means: teacher 3/4, 3/2, 3/4, student 1, 1 and
    # sqrt 2 over (2 + sqrt 2) / 3. Each pair counts twice, over 9.
    mean = (2 + 2**0.5) / 3
    pairs = [(0.75, 1 / mean), (1.5, 1 / mean), (0.75, 2**0.5 / mean)]
    expected = 2 * sum((t - s) ** 2 / 2 for t, s in pairs) / 9
    assert expected == pytest.approx(0.0716991, abs=1e-7)
    assert found['loss_rkd_distance'].item() == pytest.approx(expected)
    # Cosines at the vertices: teacher 1, -1, 1, student 0, 1/sqrt 2 twice.
    # Huber: 1/2, 1.7071 - 1/2, 0.2929^2 / 2; twice, over 27.
    root = 2**-0.5
    expected = 2 * (0.5 + 1 + root - 0.5 + (1 - root) ** 2 / 2) / 27
    assert expected == pytest.approx(0.1296296, abs=1e-7)
    assert found['loss_rkd_angle'].item() == pytest.approx(expected)


def test_published_weights():
    found = terms(STUDENT, TEACHER)
    assert sum(found.values()).item() == pytest.approx(8.273960, abs=1e-5)


def test_loops_in_float64():
    student = torch.randn(5, 3, dtype=torch.float64)
    teacher = torch.randn(5, 7, dtype=torch.float64)

    def cosine(e, i, j, k):
        a, b = e[j] - e[i], e[k] - e[i]
        norm = a.norm() * b.norm()
        return (a @ b / norm).item() if norm > 0 else 0.0

    def huber(x):
        return x * x / 2 if abs(x) < 1 else abs(x) - 0.5

    images = range(5)
    total = sum(
        huber(cosine(student, i, j, k) - cosine(teacher, i, j, k))
        for i in images
        for j in images
        for k in images
    )
    found = terms(student, teacher, angle_weight=1.0)
    assert found['loss_rkd_angle'].item() == pytest.approx(total / 125)


def test_blocks_of_vertices_change_nothing(monkeypatch):
    student, teacher = torch.randn(2, 7, 4, dtype=torch.float64).unbind()
    whole = terms(student, teacher)
    monkeypatch.setattr(module, 'BLOCK', 2 * 7 * 7)
    torch.testing.assert_close(terms(student, teacher), whole)


def test_scale_and_shift_do_not_matter():
    student, teacher = torch.randn(2, 6, 4, dtype=torch.float64).unbind()
    torch.testing.assert_close(
        terms(3 * student + 5, teacher), terms(student, teacher)
    )


def test_close_embeddings_far_from_zero_keep_their_distances():
    # Squares of these numbers have no room for differences of 1e-3.
    near = 100 + 1e-3 * STUDENT
    found = terms(near, STUDENT)
    assert found['loss_rkd_distance'] < 1e-3


def test_equal_embeddings_are_finite():
    student = torch.ones(4, 3, requires_grad=True)
    total = sum(terms(student, torch.randn(4, 3)).values())
    total.backward()
    assert total.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('apart', [0.0, 1e-7, 1e-6])
@pytest.mark.parametrize('equal', ['both', 'student'])
def test_a_repeated_image_pulls_no_more_than_others(apart, equal):
    """The two are equal but for rounding; only their distance is seen."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 16, generator=generator)
    shift = apart * torch.randn(2, 16, generator=generator)
    student[1] = student[0] + shift[0]
    if equal == 'both':
        teacher[1] = teacher[0] + shift[1]
    student.requires_grad_()
    sum(terms(student, teacher).values()).backward()
    lengths = student.grad.norm(dim=1)
    assert lengths[:2].max() < 10 * lengths[2:].max()


def test_an_embedding_without_length_pulls_at_nothing():
    student = torch.randn(4, 3)
    student[0] = 0.0
    student.requires_grad_()
    found = terms(student, torch.randn(4, 3), normalize=True)
    sum(found.values()).backward()
    assert not student.grad[0].any() and student.grad[1:].any()


def test_normalised_embeddings_know_no_length():
    student, teacher = torch.rand(2, 4, 3, dtype=torch.float64).unbind()
    lengths = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
    torch.testing.assert_close(
        terms(lengths * student, teacher, normalize=True),
        terms(student, teacher, normalize=True),
    )
    assert (
        terms(lengths * student, teacher)['loss_rkd_angle']
        != terms(student, teacher)['loss_rkd_angle']
    )


def test_few_images():
    for count in (1, 2):
        found = terms(STUDENT[:count], TEACHER[:count])
        assert found['loss_rkd_angle'] == 0
        assert found['loss_rkd_distance'] == 0
