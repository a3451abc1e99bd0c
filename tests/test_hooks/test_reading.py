"""Training states are read whole, and never run."""

import copy
import os

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import CheckpointLoader
from toy_runs import same

from mmrkkd.checkpoint import read_training_state, use_safe_reader
from mmrkkd.checkpoint.random_state import (
    random_state,
    seed_all,
    set_random_state,
)
from mmrkkd.checkpoint.training_state import check_intact, zoo_location

pytestmark = pytest.mark.usefixtures('process_as_before')
# Every schedule of MMEngine's for the learning rate, with what it needs.
SCHEDULERS = dict(
    ConstantLR=dict(end=3),
    CosineAnnealingLR=dict(T_max=5),
    CosineRestartLR=dict(periods=[3, 9], restart_weights=[1, 0.5], eta_min=0),
    ExponentialLR=dict(gamma=0.9),
    LinearLR=dict(end=4),
    MultiStepLR=dict(milestones=[2, 4]),
    OneCycleLR=dict(eta_max=0.1, total_steps=20),
    PolyLR=dict(power=0.9),
    ReduceOnPlateauLR=dict(monitor='loss'),
    StepLR=dict(step_size=2),
)


@pytest.fixture(params=['this torch', 'torch 2.1'])
def any_torch(request, monkeypatch):
    """The reader for the torch that is here, and the one before 2.6."""
    if request.param != 'this torch':
        monkeypatch.setattr(torch, '__version__', '2.1.2')


def state(**changes):
    return dict(
        dict(
            meta=dict(epoch=1, iter=4, seed=0),
            state_dict=dict(a=torch.ones(2)),
            message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
            optimizer=dict(state={}, param_groups=[]),
        ),
        **changes,
    )


def saved(path, **changes):
    torch.save(state(**changes), path)
    return path


def test_log_history_comes_back_as_it_was(tmp_path, any_torch):
    hub = MessageHub.get_instance('test_reading')
    for step in range(5):
        hub.update_scalar('train/loss', step / 3)
    hub.update_info('dataset_meta', dict(classes=('x', 'y')))
    content = read_training_state(
        saved(tmp_path / 'x.pth', message_hub=hub.state_dict())
    )
    other = MessageHub.get_instance('test_reading_other')
    other.load_state_dict(content['message_hub'])
    history, expected = (
        each.get_scalar('train/loss') for each in (other, hub)
    )
    assert type(history) is HistoryBuffer
    same(history._log_history, expected._log_history)
    same(history._count_history, expected._count_history)
    assert history.mean(3) == pytest.approx((2 + 3 + 4) / 9)
    assert history.statistics('current') == 4 / 3
    assert other.get_info('dataset_meta') == dict(classes=('x', 'y'))


def test_every_scheduler_goes_on_as_it_would(tmp_path, any_torch):
    kinds = {
        name for name in PARAM_SCHEDULERS.module_dict if name.endswith('LR')
    }
    assert kinds == set(SCHEDULERS)

    def rates(scheduler, wrapper, steps):
        for _ in range(steps):
            wrapper.optimizer.step()
            scheduler.step(dict(loss=1.0)) if (
                'Plateau' in type(scheduler).__name__
            ) else scheduler.step()
        return wrapper.get_lr()['lr']

    for name, options in SCHEDULERS.items():

        def make(name=name, options=options):
            parameter = torch.nn.Parameter(torch.ones(1))
            wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=0.5))
            config = dict(copy.deepcopy(options), type=name)
            config['optimizer'] = wrapper
            return PARAM_SCHEDULERS.build(config), wrapper

        scheduler, wrapper = make()
        rates(scheduler, wrapper, 3)
        path = saved(
            tmp_path / f'{name}.pth',
            param_schedulers=[scheduler.state_dict()],
            optimizer=wrapper.state_dict(),
        )
        content = read_training_state(path)
        resumed, other = make()
        other.load_state_dict(content['optimizer'])
        resumed.load_state_dict(content['param_schedulers'][0])
        assert rates(resumed, other, 6) == rates(scheduler, wrapper, 6), name


@pytest.mark.parametrize(
    'what, name',
    [
        ((os.system, ('true',)), 'posix.system'),
        ((getattr, (np.ndarray, '__init__')), 'builtins.getattr'),
        ((eval, ('1',)), r'(builtins\.)?eval'),
    ],
)
def test_whatever_runs_code_is_refused(tmp_path, any_torch, what, name):

    class Payload:
        def __reduce__(self):
            return what

    path = saved(tmp_path / 'x.pth', more=Payload())
    with pytest.raises(ValueError, match=f'GLOBAL {name}.*was refused'):
        read_training_state(path)
    read_training_state(path, trust=True)


def test_methods_of_mmengine_are_never_called(tmp_path, any_torch):

    class Payload:
        def __reduce__(self):
            return MessageHub.get_instance, ('made_by_a_file',)

    path = saved(tmp_path / 'x.pth', more=Payload())
    with pytest.raises(ValueError, match='was refused|not callable'):
        read_training_state(path)
    assert not MessageHub.check_instance_created('made_by_a_file')


def test_python_text_for_mmengine_to_execute_is_left_out(tmp_path):
    path = saved(tmp_path / 'x.pth', meta=dict(epoch=1, iter=4, config='a=1'))
    assert 'config' not in read_training_state(path)['meta']


def test_versions_of_modules_travel_with_the_weights(tmp_path, any_torch):
    weights = torch.nn.BatchNorm1d(2).state_dict()
    path = saved(tmp_path / 'x.pth', state_dict=weights)
    read = read_training_state(path)['state_dict']
    assert read._metadata == weights._metadata


def test_a_flipped_byte_among_the_weights_is_found(tmp_path):
    path = saved(tmp_path / 'x.pth', state_dict=dict(a=torch.zeros(1000)))
    check_intact(path)
    content = bytearray(path.read_bytes())
    content[content.index(bytes(3000)) + 1000] ^= 1
    path.write_bytes(content)
    # torch.load does not look at the checksums.
    assert read_training_state(path)['state_dict']['a'].sum() != 0
    with pytest.raises(ValueError, match='checksum of .* does not match'):
        check_intact(path)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_file_cut_anywhere_is_refused_with_a_clear_error(
    tmp_path, any_torch, zipped
):
    path = tmp_path / 'x.pth'
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(
        state(message_hub=dict(log_scalars=dict(a=history))),
        path,
        _use_new_zipfile_serialization=zipped,
    )
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match='x.pth'):
            check_intact(path)


@pytest.mark.parametrize('part', ['meta', 'state_dict', 'message_hub'])
def test_weights_alone_are_no_state_to_go_on_from(tmp_path, part):
    path = saved(tmp_path / 'x.pth', **{part: None})
    with pytest.raises(ValueError, match=f'it has no {part}.*set load_from'):
        check_intact(path)


def test_mmengine_reads_by_the_safe_reader(tmp_path):
    path = saved(tmp_path / 'x.pth', more=MessageHub)
    use_safe_reader()
    content = CheckpointLoader.load_checkpoint(str(path), 'cpu')
    assert 'more' not in content
    for name in ('s3://x/a.pth', 'petrel://a.pth', 'pavi://a'):
        with pytest.raises(ValueError, match='--trust-checkpoint'):
            CheckpointLoader.load_checkpoint(name)
    with pytest.raises(ValueError, match='an https URL'):
        CheckpointLoader.load_checkpoint('http://x.org/a.pth')


def test_names_of_model_zoos_are_urls(tmp_path, monkeypatch):
    assert zoo_location('torchvision://resnet18').startswith(
        'https://download.pytorch.org/models/resnet18'
    )
    # Renamed once; every fork keeps its files somewhere else.
    location = zoo_location('open-mmlab://resnet50_caffe')
    assert location.startswith('https://')
    assert location == zoo_location('openmmlab://detectron/resnet50_caffe')
    with pytest.raises(ValueError, match="no model 'gone' in torchvision"):
        zoo_location('torchvision://gone')
    path = tmp_path / 'x.pth'
    weights = {'backbone.a': torch.ones(1), 'head.b': torch.ones(1)}
    torch.save(dict(state_dict=weights), path)
    monkeypatch.setattr(
        'mmrkkd.checkpoint.training_state.zoo_location', lambda name: str(path)
    )
    use_safe_reader()
    content = CheckpointLoader.load_checkpoint('mmcls://x')
    assert list(content['state_dict']) == ['a']


def test_random_state_of_a_file_gives_the_same_numbers(tmp_path, any_torch):
    import random

    def numbers():
        return random.random(), np.random.rand(), float(torch.rand(()))

    seed_all(5)
    # Half of a pair of normal numbers is kept by two of the generators.
    random.gauss(0, 1), np.random.randn()
    path = saved(tmp_path / 'x.pth', random_state=random_state())
    expected = numbers(), random.gauss(0, 1), np.random.randn()
    seed_all(6)
    set_random_state(read_training_state(path)['random_state'])
    assert (numbers(), random.gauss(0, 1), np.random.randn()) == expected
