"""Two gloo processes on the CPU against one process."""

import copy
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import CLASSES, detector_config
from mmdet.testing import demo_mm_inputs
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import get_state_dict

from mmrkkd.models import KDDetector

LEARNING_RATE = 0.1


def make_model():
    # Every proposal is scored and none is drawn at random, so that two
    # processes with an image each see what one with both sees.
    config = detector_config()
    config.train_cfg.rcnn.sampler.update(num=10_000, add_gt_as_proposals=True)
    config.train_cfg.rpn.sampler.num = 100_000
    # Batch statistics would differ between the two ways.
    config.backbone.norm_eval = True
    torch.manual_seed(0)
    model = KDDetector(
        student=copy.deepcopy(config),
        teacher=dict(config=config, allow_random_weights=True),
        losses=dict(type='mmrkkd.RankKDLoss', temperature=1.0),
        class_names=CLASSES,
    )
    # A teacher that is not the student's twin.
    for parameter in model.teacher.model.parameters():
        parameter.mul_(1.5)
    return model


def make_batch(index):
    torch.manual_seed(index)
    return demo_mm_inputs(
        1, [[3, 96, 128]], num_items=[2 * index], num_classes=3
    )


def step(rank, world, port, results):
    init_default_scope('mmdet')
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=world,
    )
    model = MMDistributedDataParallel(make_model())
    optimizer = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=LEARNING_RATE)
        ),
    )
    # Rank 1 has objects; rank 0 has an image without any.
    log = model.train_step(make_batch(rank), optimizer)
    state = get_state_dict(model)
    results[rank] = dict(
        terms={key: float(value.detach()) for key, value in log.items()},
        weights={key: value.clone() for key, value in state.items()},
    )
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results():
    with mp.Manager() as manager:
        shared = manager.dict()
        mp.spawn(step, (2, _free_port(), shared), nprocs=2)
        return [shared[0], shared[1]]


def _free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def alone(rank):
    """The terms and gradients of one process's batch in a single process."""
    model = make_model()
    data = model.data_preprocessor(make_batch(rank), True)
    total, log = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    return log, {
        name.removeprefix('student.'): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.usefixtures('mmdet_scope')
def test_no_term_is_lost_and_nothing_hangs(results):
    for rank, result in enumerate(results):
        log, _ = alone(rank)
        assert set(result['terms']) == set(log)
        assert result['terms']['loss_kd'] > 0
        assert result['terms']['loss_rank'] != 0
        for name, value in result['terms'].items():
            assert value == pytest.approx(log[name].item(), rel=1e-4), name


@pytest.mark.usefixtures('mmdet_scope')
def test_the_step_is_that_of_the_mean_gradient(results):
    before = make_model().state_dict()
    gradients = [alone(rank)[1] for rank in (0, 1)]
    for name, gradient in gradients[0].items():
        mean = (gradient + gradients[1][name]) / 2
        for result in results:
            moved = before[name] - result['weights'][name]
            torch.testing.assert_close(
                moved, LEARNING_RATE * mean, rtol=1e-3, atol=1e-6
            )


@pytest.mark.usefixtures('mmdet_scope')
def test_processes_stay_equal_and_hold_a_plain_student(results):
    first, second = (result['weights'] for result in results)
    assert set(first) == set(make_model().student.state_dict())
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
