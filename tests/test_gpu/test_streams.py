"""The teacher on a stream of its own gives what the serial order gives."""

import contextlib
import sys
from pathlib import Path

import pytest
import torch

from mmrkkd.distillers.inference.ahead import Ahead
from mmrkkd.registry import MODELS

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / 'test_together'), str(TESTS / 'test_models')]

import small_dense_heads  # noqa: E402
import small_detectors  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures('mmdet_scope')]
STEPS = 200


@contextlib.contextmanager
def repeatable():
    """Kernels whose sums have one order, or a note of those without."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        cudnn.deterministic, cudnn.benchmark = before


def build(precision, stream):
    torch.manual_seed(0)
    config = small_detectors.distilled()
    config['teacher'].update(precision=precision, stream=stream)
    return MODELS.build(config).cuda().train()


def batch(model, *numbers):
    items = [small_detectors.sample(number) for number in numbers]
    data = {
        key: [item[key] for item in items]
        for key in ('inputs', 'data_samples')
    }
    return model.data_preprocessor(data, True)


def teacher_logits(precision, stream):
    """The teacher's logits of every step.

    The student's weights do not move: RoI Align's backward adds up in no
    fixed order, which no order of the streams is to blame for.
    """
    model = build(precision, stream)
    seen = []
    read = model.reader.read

    def noted(*args):
        matches = read(*args)
        seen.append(torch.cat([m.teacher_logits for m in matches]).clone())
        return matches

    model.reader.read = noted
    with repeatable():
        for step in range(STEPS):
            data = batch(model, step, step + 1)
            torch.manual_seed(step)
            total, _ = model.parse_losses(model(**data, mode='loss'))
            total.backward()
            model.zero_grad()
    # Without those of the first batch, which a precision is settled on.
    return seen[-STEPS:]


@pytest.mark.slow
@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_two_hundred_steps_equal_the_serial_order(precision):
    beside = teacher_logits(precision, stream=True)
    serial = teacher_logits(precision, stream=False)
    assert len(beside) == len(serial) == STEPS
    for number, (one, other) in enumerate(zip(beside, serial, strict=True)):
        assert torch.equal(one, other), number


def test_the_features_are_made_on_another_stream():
    model = build('float32', stream=True)
    seen = []
    extract = model.teacher.model.extract_feat

    def watched(images):
        seen.append(torch.cuda.current_stream())
        return extract(images)

    model.teacher.model.extract_feat = watched
    torch.manual_seed(0)
    model(**batch(model, 0), mode='loss')
    assert seen and seen[0] != torch.cuda.current_stream()
    # What the benchmarks put around it is still there.
    assert model.teacher.model.extract_feat is watched


class Slow(torch.nn.Module):
    """Features that take 10 ms of the device."""

    def extract_feat(self, images):
        torch.cuda._sleep(20_000_000)
        return (images * 2,)


def full(number):
    return torch.full((1 << 20,), float(number), device='cuda')


def test_inputs_are_not_written_over_while_they_are_read():
    for number in range(20):
        views = [full(number), full(number)]
        # Both views joined are memory that nobody else holds.
        begun = Ahead(Slow(), views)
        for _ in range(4):
            torch.full((1 << 21,), -1.0, device='cuda')
        (features,) = begun.of(views[1])
        assert bool((features == 2 * number).all())


def test_features_are_not_written_over_while_they_are_read():
    results = []
    for number in range(20):
        views = [full(number)]
        begun = Ahead(Slow(), views)
        (features,) = begun.of(views[0])
        torch.cuda._sleep(40_000_000)
        results.append(features + 1)
        # The next ones are made before these have been read.
        del begun, features
    for number, result in enumerate(results):
        assert bool((result == 2 * number + 1).all())


def test_a_dense_teacher_beside_the_student():
    found = []
    for stream in (True, False):
        torch.manual_seed(0)
        config = small_dense_heads.distilled(
            'retinanet', dict(type='mmrkkd.BinaryKDLoss')
        )
        config['teacher'].update(stream=stream)
        model = MODELS.build(config).cuda().train()
        data = model.data_preprocessor(small_dense_heads.batch(), True)
        with repeatable():
            found.append(model(**data, mode='loss')['loss_binary_kd'])
    assert torch.equal(*found)
