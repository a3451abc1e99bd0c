"""Losses that reach into the models, in two gloo processes on the CPU."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import free_port
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from small_classifiers import RKKD, batch
from test_mixed_paths import FCFD, config

LOSSES = [
    RKKD,
    dict(FCFD, paths=1),
    dict(type='mmrkkd.NORMLoss', copies=2, logit_scale=2.5),
    dict(type='mmrkkd.OFDLoss', student_layers='backbone.layer3.0.bn2'),
]
STEPS = 4


def steps(rank, port, results):
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=2,
    )
    torch.manual_seed(0)
    model = MMDistributedDataParallel(MODELS.build(config(LOSSES)))
    optimizer = build_optim_wrapper(
        model, dict(optimizer=dict(type='SGD', lr=0.01))
    )
    # Each process would draw paths of its own.
    torch.manual_seed(rank)
    drawn = []
    fcfd = model.module.distiller[1]
    draw, fcfd.draw = fcfd.draw, lambda: drawn.append(draw()) or drawn[-1]
    for number in range(STEPS):
        # As RuntimeInfoHook states it.
        MessageHub.get_current_instance().update_info('iter', number)
        terms = model.train()(
            **model.module.data_preprocessor(
                batch(8 * rank, 8 * rank + 8), True
            ),
            mode='loss',
        )
        loss = sum(value for key, value in terms.items() if 'loss' in key)
        optimizer.update_params(loss)
    results[rank] = dict(
        drawn=drawn,
        loss=loss.item(),
        weights={
            name: value.detach().clone()
            for name, value in model.module.named_parameters()
        },
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_stay_together():
    with mp.Manager() as manager:
        shared = manager.dict()
        mp.spawn(steps, (free_port(), shared), nprocs=2)
        first, second = shared[0], shared[1]
    assert first['drawn'] == second['drawn']
    assert len({tuple(paths) for paths in first['drawn']}) > 1
    assert first['loss'] != second['loss']
    for name, value in first['weights'].items():
        assert torch.equal(value, second['weights'][name]), name
