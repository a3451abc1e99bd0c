"""Whole training steps of small models on a GPU."""

import contextlib
import copy
import sys
import traceback
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import DefaultScope

from mmrkkd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'test_together'))

import small_classifiers  # noqa: E402
import small_detectors  # noqa: E402

pytestmark = pytest.mark.gpu
DEVICE = 'cuda'
# PyTorch's words in set_sync_debug_mode('warn').
WAITS = 'called a synchronizing CUDA operation'


def detector():
    items = [small_detectors.sample(number) for number in (0, 1)]
    data = {
        key: [item[key] for item in items]
        for key in ('inputs', 'data_samples')
    }
    return 'mmdet', small_detectors.distilled(), data


def classifier():
    return (
        'mmpretrain',
        small_classifiers.distilled(),
        small_classifiers.batch(),
    )


@pytest.fixture(params=[detector, classifier], ids=lambda case: case.__name__)
def case(request):
    """A distiller on the GPU, and a batch as the data loader gives it."""
    scope, config, data = request.param()
    with DefaultScope.overwrite_default_scope(scope):
        torch.manual_seed(0)
        model = MODELS.build(config)
        model.init_weights()
        yield model.to(DEVICE).train(), data


def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.01)


def test_a_step_is_finite_and_moves_the_student_alone(case):
    model, data = case
    teacher = copy.deepcopy(model.teacher.model.state_dict())
    before = copy.deepcopy(model.state_dict())
    log = model.train_step(data, OptimWrapper(optimizer(model)))
    assert all(value.isfinite().all() for value in log.values())
    assert log['loss_rank'].device.type == DEVICE
    after = model.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    for key, value in model.teacher.model.state_dict().items():
        assert torch.equal(teacher[key], value), key


def test_task_losses_are_those_of_the_student_alone(case):
    model, data = case
    data = model.data_preprocessor(data, True)
    losses = []
    # The first pass starts what is started once.
    for run in (model, model.student, model):
        torch.manual_seed(1)
        losses.append(run(**data, mode='loss'))
    for key, value in losses[1].items():
        # MMPretrain's is renamed: 'loss' is the log's total.
        key = 'loss_task' if key == 'loss' else key
        torch.testing.assert_close(losses[2][key], value, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_a_step_in_mixed_precision(case, dtype):
    model, data = case
    if dtype == 'bfloat16' and hasattr(model, 'roi_head'):
        pytest.skip("MMCV's RoI Align has no bfloat16")
    wrapper = AmpOptimWrapper(
        optimizer=optimizer(model), dtype=dtype, loss_scale=2.0**10
    )
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        log = model.train_step(data, wrapper)
        assert all(value.isfinite().all() for value in log.values())
    # float32 arithmetic, whatever the logits come in.
    assert log['loss_rank'].dtype == torch.float32
    after = model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before)


@contextlib.contextmanager
def noted_waits():
    """Notes where this process waits for the GPU: a stack for each wait."""
    stacks = []

    def show(message, *args, **kwargs):
        if WAITS in str(message):
            stacks.append(traceback.extract_stack()[:-1])

    with warnings.catch_warnings():
        warnings.simplefilter('always')
        warnings.showwarning = show
        torch.cuda.set_sync_debug_mode('warn')
        try:
            yield stacks
        finally:
            torch.cuda.set_sync_debug_mode('default')


def place_of(stack):
    """The innermost line of a stack that is not PyTorch's or this test's."""
    for frame in reversed(stack):
        path = Path(frame.filename).resolve()
        if 'torch' not in path.parts and path.name not in (
            'warnings.py',
            Path(__file__).name,
        ):
            return path, frame.lineno
    return Path(__file__), 0


def is_ours(place):
    return place[0].is_relative_to(ROOT / 'mmrkkd')


def count(step):
    """How often a step waits: all, and the places that are ours."""
    for _ in range(2):
        step()
    with noted_waits() as stacks:
        step()
    return len(stacks), [
        f'{path.relative_to(ROOT)}:{line}'
        for path, line in filter(is_ours, map(place_of, stacks))
    ]


def test_waits_are_seen_where_they_are():
    values = torch.ones(3, device=DEVICE)
    with noted_waits() as stacks:
        values.sum().item()
        values.nonzero()
    assert len(stacks) >= 2
    assert all(str(Path(__file__)) in str(stack) for stack in stacks)


def test_a_step_has_no_wait_of_ours(case, record_property):
    model, data = case
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    found, ours = count(lambda: model.train_step(data, wrapper))
    alone, _ = count(lambda: model.student.train_step(data, wrapper))
    record_property('waits', found)
    record_property('waits of the student alone', alone)
    record_property('waits of ours', ', '.join(ours) or 0)
    assert ours == []


def test_ddp_over_nccl_takes_the_same_step(case, tmp_path):
    model, data = case
    plain = copy.deepcopy(model)
    torch.manual_seed(1)
    plain.train_step(data, OptimWrapper(optimizer(plain)))
    dist.init_process_group(
        'nccl',
        init_method=f'file://{tmp_path}/rendezvous',
        rank=0,
        world_size=1,
        device_id=torch.device(DEVICE, 0),
    )
    try:
        parallel = MMDistributedDataParallel(model, device_ids=[0])
        torch.manual_seed(1)
        parallel.train_step(data, OptimWrapper(optimizer(model)))
    finally:
        dist.destroy_process_group()
    # Gradients of RoI Align are added up in another order each time.
    torch.testing.assert_close(
        model.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-6
    )
