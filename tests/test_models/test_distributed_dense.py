"""Two processes with an image each learn what one with both learns."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import free_port
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from small_dense_heads import batch, distilled
from small_query_heads import FAMILIES as QUERIES
from small_query_heads import query_distilled
from test_queries import tell_queries_apart

from mmrkkd.registry import MODELS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('mmdet_scope')]
# The first finds labels, the second has none, the third matches proposals.
FAMILIES = ('retinanet', 'free_anchor', 'sparse_rcnn')
TERMS = ('loss_binary_kd', 'loss_rank')


def gradients(family, images):
    """Terms and gradients of a step with some of the two images."""
    torch.manual_seed(0)
    config = query_distilled if family in QUERIES else distilled
    model = MODELS.build(config(family, dict(type='mmrkkd.RankKDLoss')))
    if family in QUERIES:
        # Proposals start with whatever lay in the memory, and two that say
        # the same may be exchanged by a rounding.
        for part in (model.student, model.teacher.model):
            part.init_weights()
            tell_queries_apart(part)
    model.train().double()
    for part in model.student.modules():
        # Statistics of the batch would differ between the two ways.
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.eval()
    data = {
        key: [value[i] for i in images] for key, value in data_of().items()
    }
    data = model.data_preprocessor(data, True)
    data['inputs'] = data['inputs'].double()
    for sample in data['data_samples']:
        objects = sample.gt_instances
        objects.bboxes = objects.bboxes.double()
    parallel = model
    if dist.is_initialized():
        parallel = MMDistributedDataParallel(
            model, find_unused_parameters=True
        )
    terms = parallel(**data, mode='loss')
    # The task's own are not all means over what the processes see.
    terms = {k: v for k, v in terms.items() if k.split('.')[-1] in TERMS}
    sum(terms.values()).backward()
    return {key: value.item() for key, value in terms.items()}, {
        name.removeprefix('student.'): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def data_of():
    """Two images of one size; the second has one object of three."""
    data = batch('rtmdet_ins')
    second = data['data_samples'][1]
    second.gt_instances = second.gt_instances[:1]
    for sample in data['data_samples']:
        del sample.gt_instances.masks
    return data


def work(rank, port, results):
    init_default_scope('mmdet')
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=2,
    )
    for family in FAMILIES:
        results[family, rank] = gradients(family, [rank])
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results():
    with mp.Manager() as manager:
        shared = manager.dict()
        mp.spawn(work, (free_port(), shared), nprocs=2)
        return dict(shared)


@pytest.mark.parametrize('family', FAMILIES)
def test_two_processes_equal_one(results, family):
    terms, whole = gradients(family, [0, 1])
    (first, mean), (second, same) = (results[family, r] for r in (0, 1))
    assert set(mean) == set(same) == set(whole)
    for key in terms:
        assert first[key] != second[key]
        assert (first[key] + second[key]) / 2 == pytest.approx(
            terms[key], rel=1e-6
        )
    for name, gradient in whole.items():
        assert torch.equal(mean[name], same[name])
        # In float64, as what cancels in an untrained net leaves few digits
        # of float32, in which what is divided by is.
        assert (mean[name] - gradient).norm() <= 1e-6 * gradient.norm(), name
