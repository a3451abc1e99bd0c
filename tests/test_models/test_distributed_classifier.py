"""KDClassifier in two gloo processes on the CPU."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import CLASSES, classifier_config, free_port
from mmengine.model import MMDistributedDataParallel
from mmengine.model.utils import convert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmrkkd.distillers import KDClassifier

LEARNING_RATE = 0.1
LOSSES = dict(
    type='mmrkkd.RankKDLoss',
    kd=dict(type='CTKDLoss', ramp=1.0),
    kd_weight=1.0,
    rank_weight=1.0,
)


def network():
    return classifier_config(
        data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3)
    )


def make_model():
    torch.manual_seed(0)
    model = KDClassifier(
        student=network(),
        teacher=dict(config=network(), allow_random_weights=True),
        losses=LOSSES,
        class_names=CLASSES,
    )
    for parameter in model.teacher.model.parameters():
        parameter.mul_(1.5)
    return model


def make_batch(index):
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(index)
    return dict(
        inputs=torch.randint(
            256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator
        ),
        data_samples=[DataSample().set_gt_label(i % 3) for i in range(4)],
    )


def weights_of(model):
    """Parameters and buffers, the losses' too; the student's by its names."""
    return {
        name.removeprefix('student.'): value.detach().clone()
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }


def join(rank, port):
    """Makes this process one of two."""
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=2,
    )


def of_both_processes(step):
    """What step(rank, port, results) leaves in the results of each."""
    with mp.Manager() as manager:
        shared = manager.dict()
        mp.spawn(step, (free_port(), shared), nprocs=2)
        return [shared[0], shared[1]]


def step(rank, port, results):
    join(rank, port)
    model = MMDistributedDataParallel(make_model())
    model.eval()  # The statistics of BN are not what is tested here.
    wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=LEARNING_RATE)
    )
    optimizer = build_optim_wrapper(model, wrapper)
    terms = model.train_step(make_batch(rank), optimizer)
    results[rank] = dict(
        terms={key: float(value.detach()) for key, value in terms.items()},
        weights=weights_of(model.module),
    )
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results():
    return of_both_processes(step)


def alone(rank):
    model = make_model().eval()
    data = model.data_preprocessor(make_batch(rank), True)
    total, log = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    return log, {
        name.removeprefix('student.'): parameter.grad
        for name, parameter in model.named_parameters()
    }


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """Names in configs mean MMPretrain's, as inside its runner."""
    init_default_scope('mmpretrain')


@pytest.mark.slow
def test_every_term_is_that_of_a_single_process(results):
    for rank, result in enumerate(results):
        log, _ = alone(rank)
        assert set(result['terms']) == set(log)
        for name, value in result['terms'].items():
            assert value == pytest.approx(log[name].item(), rel=1e-4), name
        assert result['terms']['loss_rank'] != 0


@pytest.mark.slow
def test_weights_and_learned_temperature_move_by_the_mean_gradient(results):
    before = weights_of(make_model())
    gradients = [alone(rank)[1] for rank in (0, 1)]
    assert any(name.startswith('distiller.') for name in gradients[0])
    for name, gradient in gradients[0].items():
        mean = (gradient + gradients[1][name]) / 2
        for result in results:
            moved = before[name] - result['weights'][name]
            torch.testing.assert_close(
                moved, LEARNING_RATE * mean, rtol=1e-3, atol=1e-6
            )


@pytest.mark.slow
def test_processes_stay_equal(results):
    first, second = (result['weights'] for result in results)
    assert set(first) == set(second)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_conversion_to_synchronised_bn_leaves_the_teacher_alone():
    model = convert_sync_batchnorm(make_model())
    kinds = {type(part) for part in model.student.modules()}
    assert nn.SyncBatchNorm in kinds
    kinds = {type(part) for part in model.teacher.model.modules()}
    assert nn.SyncBatchNorm not in kinds
