"""DOT in two gloo processes is DOT on the mean gradients of both."""

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.model.utils import detect_anomalous_params
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from test_distributed_classifier import (
    join,
    make_batch,
    make_model,
    of_both_processes,
    weights_of,
)

from mmrkkd.distillers.terms import loss_parts

STEPS = 3
WRAPPER = dict(
    type='mmrkkd.DOTOptimWrapper',
    optimizer=dict(type='mmrkkd.DOT', lr=0.1, weight_decay=1e-3),
)


def model_of(rank):
    """Its temperature is learned in the first process alone."""
    model = make_model()
    model.eval()  # The statistics of BN are not what is tested here.
    if rank == 1:
        loss = model.distiller[0].kd
        # The losses of a RankKDLoss are not called, but asked per sample.
        taught = loss.per_sample
        loss.per_sample = lambda *args: {
            name: value.detach() for name, value in taught(*args).items()
        }
    return model


def step(rank, port, results):
    join(rank, port)
    model = MMDistributedDataParallel(
        model_of(rank), detect_anomalous_params=True
    )
    optimizer = build_optim_wrapper(model, WRAPPER)
    for number in range(STEPS):
        model.train_step(make_batch(2 * number + rank), optimizer)
    results[rank] = weights_of(model.module)
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results():
    return of_both_processes(step)


def in_one_process():
    """Two models that share their weights, each with a rank's batch."""
    init_default_scope('mmpretrain')
    models = [model_of(rank) for rank in (0, 1)]
    optimizer = build_optim_wrapper(models[0], WRAPPER).optimizer
    for number in range(STEPS):
        models[1].load_state_dict(models[0].state_dict())
        models[1].load_learned_state(models[0].learned_state())
        parts = []
        for rank, model in enumerate(models):
            data = model.data_preprocessor(make_batch(2 * number + rank), True)
            terms = model(**data, mode='loss')
            parts.append(loss_parts(terms, model.task_names))
        tasks, distillation = zip(*parts)
        mean_gradient(models, tasks)
        with optimizer.distilling():
            mean_gradient(models, distillation)
        optimizer.step()
        optimizer.zero_grad()
    return weights_of(models[0])


def mean_gradient(models, losses):
    """Leaves it with the first of the models."""
    for model, loss in zip(models, losses):
        model.zero_grad()
        loss.backward(retain_graph=True)
    for p, other in zip(*(model.parameters() for model in models)):
        found = [g for g in (p.grad, other.grad) if g is not None]
        p.grad = sum(found) / 2 if found else None


def test_anomalous_parameters_are_those_that_neither_loss_reaches(
    monkeypatch,
):
    """As MMDistributedDataParallel(detect_anomalous_params=True) asks."""
    told = []
    monkeypatch.setattr(
        'mmengine.model.utils.print_log', lambda text, **_: told.append(text)
    )
    init_default_scope('mmpretrain')
    model = model_of(rank=1)
    data = model.data_preprocessor(make_batch(0), True)
    parts = loss_parts(model(**data, mode='loss'), model.task_names)
    detect_anomalous_params(parts, model)
    (text,) = told
    assert text.startswith('distiller.0.kd.theta')


@pytest.mark.slow
def test_processes_stay_equal_and_step_as_one(results):
    expected = in_one_process()
    start = weights_of(make_model())
    moved = 0
    for key, value in expected.items():
        first, second = (result[key] for result in results)
        assert torch.equal(first, second), key
        torch.testing.assert_close(first, value, rtol=1e-5, atol=1e-6)
        moved += not torch.equal(value, start[key])
    assert moved > 20
