"""FSDP is refused at the first step, not at the first checkpoint."""

import socket

import pytest
import torch
import torch.distributed as dist
from conftest import CLASSES, classifier_config
from mmengine._strategy import DDPStrategy
from mmengine.config import Config
from mmengine.model.wrappers import MMFullyShardedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope, init_default_scope

from mmrkkd.distillers import KDClassifier
from mmrkkd.distillers.sharding import refuse_strategies


@pytest.fixture
def process_group():
    init_default_scope('mmpretrain')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=0,
        world_size=1,
    )
    yield
    dist.destroy_process_group()
    DefaultScope._instance_dict.clear()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('use_orig_params', [True, False])
def test_fsdp_is_refused_at_the_first_step(process_group, use_orig_params):
    from mmpretrain.structures import DataSample

    network = classifier_config()
    model = KDClassifier(
        student=network,
        teacher=dict(config=network, allow_random_weights=True),
        losses=dict(type='mmrkkd.RankKDLoss'),
        class_names=CLASSES,
    )
    wrapped = MMFullyShardedDataParallel(
        model,
        device_id=torch.device('cpu'),
        sharding_strategy='FULL_SHARD',
        use_orig_params=use_orig_params,
    )
    optimizer = build_optim_wrapper(
        wrapped, dict(optimizer=dict(type='SGD', lr=0.1))
    )
    data = dict(
        inputs=torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(index) for index in (0, 1)],
    )
    with pytest.raises(
        NotImplementedError,
        match='KDClassifier cannot be trained by FSDP .*MMDistributedDataPar',
    ):
        wrapped.train_step(data, optimizer)


@pytest.mark.parametrize(
    'settings',
    [
        dict(strategy=dict(type='DeepSpeedStrategy')),
        dict(strategy=dict(type='mmengine.FSDPStrategy')),
        dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')),
        dict(model_wrapper_cfg=dict(type=MMFullyShardedDataParallel)),
    ],
)
def test_the_tools_refuse_strategies_that_split_a_model(settings):
    model = dict(type='mmrkkd.KDClassifier', student=dict())
    with pytest.raises(ValueError, match='type=.* cannot train a distiller'):
        refuse_strategies(Config(dict(settings, model=model)))
    # A plain model may be trained as one likes.
    refuse_strategies(Config(dict(settings, model=dict(type='X'))))


@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(strategy=dict(type='DDPStrategy')),
        dict(strategy=dict(type=DDPStrategy)),
        dict(model_wrapper_cfg=dict(type='mmdet.MMDistributedDataParallel')),
        dict(model_wrapper_cfg=dict(find_unused_parameters=True)),
    ],
)
def test_the_tools_pass_what_keeps_a_model_whole(settings):
    model = dict(type='mmrkkd.KDClassifier', student=dict())
    refuse_strategies(Config(dict(settings, model=model)))
