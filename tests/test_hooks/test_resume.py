"""A run that was interrupted ends like one that was not."""

import hashlib
import os
import re
import shutil

import pytest
import torch
from conftest import detector_config
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from toy_runs import (
    ROOT,
    classifier,
    distilled,
    evaluate,
    logged,
    make_images,
    run_config,
    same,
    save_teacher,
    train,
)

from mmrkkd.checkpoint import read_training_state
from mmrkkd.datasets.demo_shapes import CLASSES, Recipe, make_demo_shapes
from mmrkkd.distillers.inference import engine
from mmrkkd.engine.resumed_run import RestoresAfterSkip

pytestmark = pytest.mark.usefixtures('process_as_before')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('images'))


@pytest.fixture
def teacher(tmp_path):
    return save_teacher(tmp_path / 'teacher.pth')


def learned(path):
    """What a checkpoint keeps of the losses' own parameters, or None."""
    return read_training_state(path).get('distiller')


def assert_same_end(whole, resumed, name, first):
    """Weights, optimizer, schedules, log and random state are equal."""
    expected = read_training_state(whole / name)
    state = read_training_state(resumed / name)
    for part in (
        'state_dict',
        'optimizer',
        'param_schedulers',
        'random_state',
    ):
        same(state[part], expected[part], part)
    same(learned(resumed / name), learned(whole / name), 'learned')
    histories = expected['message_hub']['log_scalars']
    for key in histories:
        # The validation of an epoch comes after its checkpoint.
        if not re.search('time|memory|val/', key):
            same(state['message_hub']['log_scalars'][key], histories[key], key)
    steps, other = logged(whole), logged(resumed)
    assert first in other
    for step in other:
        assert other[step] == steps[step]


def test_equals_the_uninterrupted_run_at_an_epochs_end(
    images, teacher, tmp_path, monkeypatch
):
    def config():
        config = run_config(images, distilled(teacher), length=3)
        # The first one is the best so far, and is written once more in the
        # middle of its validation.
        config.default_hooks.checkpoint.save_best = 'accuracy/top1'
        return config

    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    train(monkeypatch, whole, config())
    # Learned, logged, and not at its start any more.
    theta = [
        learned(whole / f'epoch_{epoch}.pth')['0.kd.theta']
        for epoch in (1, 2, 3)
    ]
    assert len({float(value) for value in theta}) == 3
    assert 'kd/temperature' in logged(whole)[1]
    resumed.mkdir()
    shutil.copy(whole / 'epoch_1.pth', resumed)
    train(monkeypatch, resumed, config(), '--resume')
    assert_same_end(whole, resumed, 'epoch_3.pth', first=5)


def loads_what_it_skips(iterator, number):
    """How MMEngine 0.10 passes over batches: augmented, then dropped."""
    for _ in range(number):
        next(iterator)


def written_by_an_earlier_version(path):
    """They kept what a loss learns in the state dict's metadata."""
    state = read_training_state(path)
    metadata = state['state_dict']._metadata['']
    metadata['distiller'] = state.pop('distiller')
    torch.save(state, path)


@pytest.mark.parametrize(
    'way', ['as it is', 'loading what it skips', 'of an earlier version']
)
def test_equals_the_uninterrupted_run_between_iterations(
    images, teacher, tmp_path, monkeypatch, way
):
    def config():
        return run_config(images, distilled(teacher), by_epoch=False, length=6)

    if way == 'loading what it skips':
        monkeypatch.setattr(
            'mmengine.runner.loops._InfiniteDataloaderIterator.skip_iter',
            loads_what_it_skips,
            raising=False,
        )
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    train(monkeypatch, whole, config())
    resumed.mkdir()
    # Half an epoch of images: the next batch is neither the first one nor
    # the start of a new order.
    shutil.copy(whole / 'iter_2.pth', resumed)
    if way == 'of an earlier version':
        written_by_an_earlier_version(resumed / 'iter_2.pth')
    train(monkeypatch, resumed, config(), '--resume')
    assert_same_end(whole, resumed, 'iter_6.pth', first=3)


@pytest.mark.slow
def test_a_detector_equals_the_uninterrupted_run(tmp_path, monkeypatch):
    shapes, classes = tmp_path / 'shapes', len(CLASSES)
    make_demo_shapes(shapes, Recipe(train=24, val=24), progress=False)
    model = detector_config(num_classes=classes)
    init_default_scope('mmdet')
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=MODELS.build(model).state_dict()), path)

    def config():
        config = Config.fromfile(ROOT / 'configs' / 'demo' / 'demo_shapes.py')
        config.merge_from_dict(
            {
                'train_dataloader.dataset.data_root': str(shapes),
                'train_dataloader.batch_size': 2,
                'train_dataloader.num_workers': 0,
                'train_dataloader.persistent_workers': False,
                'train_cfg.max_iters': 4,
                'default_hooks.checkpoint': dict(
                    type='CheckpointHook',
                    interval=2,
                    save_optimizer=True,
                    save_param_scheduler=True,
                ),
                'default_hooks.logger.interval': 1,
                'randomness': dict(seed=0, deterministic=True),
            }
        )
        for part in ('val_cfg', 'val_dataloader', 'val_evaluator'):
            config[part] = None
        config.model = dict(
            type='mmrkkd.KDDetector',
            student=model,
            teacher=dict(config=model, checkpoint=str(path), classes=CLASSES),
            losses=dict(type='mmrkkd.RankKDLoss', temperature=1.0),
        )
        return config

    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    train(monkeypatch, whole, config())
    resumed.mkdir()
    shutil.copy(whole / 'iter_2.pth', resumed)
    train(monkeypatch, resumed, config(), '--resume')
    assert_same_end(whole, resumed, 'iter_4.pth', first=3)


def test_a_run_without_a_seed_goes_on_with_its_own(
    images, tmp_path, monkeypatch
):
    config = dict(length=2, randomness=dict(seed=None, deterministic=True))
    config['val_cfg'] = config['val_dataloader'] = None
    config['val_evaluator'] = None
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    train(monkeypatch, whole, run_config(images, classifier(), **config))
    resumed.mkdir()
    shutil.copy(whole / 'epoch_1.pth', resumed)
    train(
        monkeypatch,
        resumed,
        run_config(images, classifier(), **config),
        '--resume',
    )
    assert_same_end(whole, resumed, 'epoch_2.pth', first=5)


def test_goes_on_from_the_newest_intact_checkpoint(
    images, tmp_path, monkeypatch, capsys
):
    train(monkeypatch, tmp_path, run_config(images, classifier(), length=2))
    last = tmp_path / 'epoch_2.pth'
    assert (tmp_path / 'last_checkpoint').read_text() == str(last)
    last.write_bytes(last.read_bytes()[:-5000])
    capsys.readouterr()
    train(
        monkeypatch,
        tmp_path,
        run_config(images, classifier(), length=3),
        '--resume',
    )
    said = capsys.readouterr().out
    assert re.search(r'Passed over epoch_2.pth: .* is cut off', said)
    assert f'The run is resumed from {tmp_path / "epoch_1.pth"}' in said
    assert list(logged(tmp_path)) == [*range(1, 13)]
    assert read_training_state(last)['meta']['epoch'] == 2
    assert read_training_state(tmp_path / 'epoch_3.pth')['meta']['iter'] == 12


def test_a_new_run_among_the_weights_of_another_is_told(
    images, tmp_path, monkeypatch, capsys
):
    config = run_config(images, classifier(), length=1)
    train(monkeypatch, tmp_path, config)
    assert 'earlier run' not in capsys.readouterr().out
    train(monkeypatch, tmp_path, config)
    said = capsys.readouterr().out
    assert f'{tmp_path} holds weights of an earlier run (epoch_1.pth)' in said


def test_another_number_of_processes_is_told(
    images, tmp_path, monkeypatch, capsys
):
    train(monkeypatch, tmp_path, run_config(images, classifier(), length=1))
    path = tmp_path / 'epoch_1.pth'
    state = torch.load(path, weights_only=False)
    assert state['meta']['processes'] == 1
    state['meta']['processes'] = 2
    torch.save(state, path)
    capsys.readouterr()
    config = run_config(images, classifier(), length=2)
    config.train_dataloader.batch_size = 4
    train(monkeypatch, tmp_path, config, '--resume')
    said = capsys.readouterr().out
    assert 'its checkpoint is of 2 processes and 1 go on' in said
    assert 'that epoch begins again' not in said


def test_nothing_to_resume_starts_afresh_and_all_damaged_stops(
    images, tmp_path, monkeypatch
):
    config = run_config(images, classifier(), length=1)
    train(monkeypatch, tmp_path, config, '--resume')
    only = tmp_path / 'epoch_1.pth'
    only.write_bytes(only.read_bytes()[:3000])
    with pytest.raises(
        ValueError,
        match='(?s)none of the 1 checkpoints in .*'
        'epoch_1.pth is cut off.*--resume CHECKPOINT',
    ):
        train(monkeypatch, tmp_path, config, '--resume')


def test_another_teacher_stops_the_resume(
    images, teacher, tmp_path, monkeypatch
):
    work_dir = tmp_path / 'run'
    config = run_config(images, distilled(teacher), length=1)
    train(monkeypatch, work_dir, config)
    first = hashlib.sha256(teacher.read_bytes()).hexdigest()
    state = read_training_state(work_dir / 'epoch_1.pth')
    assert state['meta']['teacher_sha256'] == first
    assert not any('sha256' in key for key in state['state_dict'])
    save_teacher(teacher, seed=8)
    second = hashlib.sha256(teacher.read_bytes()).hexdigest()
    config = run_config(images, distilled(teacher), length=2)
    with pytest.raises(ValueError, match=f'(?s){first}.*{second}'):
        train(monkeypatch, work_dir, config, '--resume')
    assert not (work_dir / 'epoch_2.pth').exists()
    # Its weights may still start a new run.
    config.load_from = str(work_dir / 'epoch_1.pth')
    config.train_cfg.max_epochs = 1
    train(monkeypatch, tmp_path / 'other', config)
    # The losses begin anew there.
    temperatures = [
        [step['kd/temperature'] for step in logged(folder).values()]
        for folder in (work_dir, tmp_path / 'other')
    ]
    assert temperatures[0][0] != temperatures[0][-1]
    assert temperatures[1][0] == temperatures[0][0]


def test_other_losses_stop_the_resume(images, teacher, tmp_path, monkeypatch):
    """One that learns nothing, and one that learns it elsewhere."""
    model = distilled(teacher)
    train(monkeypatch, tmp_path, run_config(images, model, length=1))
    for losses in (dict(type='mmrkkd.KDLoss'), model['losses'][0]['kd']):
        config = run_config(images, dict(model, losses=[losses]), length=2)
        with pytest.raises(ValueError, match='other losses than .*0.kd.theta'):
            train(monkeypatch, tmp_path, config, '--resume')
        # Weights may start a run with any losses.
        config.load_from = str(tmp_path / 'epoch_1.pth')
        config.train_cfg.max_epochs = 1
        folder = tmp_path / losses['type']
        train(monkeypatch, folder, config)
        assert (folder / 'epoch_1.pth').exists()


def test_a_loss_that_is_added_and_learns_is_refused_by_name(
    images, teacher, tmp_path, monkeypatch
):
    """The checkpoint says nothing of it, as its losses learned nothing."""
    model = distilled(teacher)
    theta, model['losses'] = model['losses'], [dict(type='mmrkkd.KDLoss')]
    train(monkeypatch, tmp_path, run_config(images, model, length=1))
    config = run_config(images, dict(model, losses=theta), length=2)
    with pytest.raises(ValueError, match='other losses than .*0.kd.theta'):
        train(monkeypatch, tmp_path, config, '--resume')


def test_the_teachers_precision_is_that_of_the_run(
    images, teacher, tmp_path, monkeypatch
):
    monkeypatch.setattr(engine, 'fast_dtype', lambda device: torch.bfloat16)
    model = distilled(teacher)
    train(monkeypatch, tmp_path, run_config(images, model, length=1))
    path = tmp_path / 'epoch_1.pth'
    state = read_training_state(path)
    first = state['meta']['teacher_precision']['precision']
    other = dict(float32='bfloat16', bfloat16='float32')[first]
    for expected in (first, other):
        state['meta']['teacher_precision'] = dict(
            precision=expected, heads=True, autocast=False
        )
        torch.save(state, path)
        config = run_config(images, model, length=2)
        train(monkeypatch, tmp_path, config, '--resume', str(path))
        resumed = read_training_state(tmp_path / 'epoch_2.pth')
        found = resumed['meta']['teacher_precision']['precision']
        assert found == expected


class Payload:
    """Unpickled for real, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('way', ['resume', 'load_from', 'teacher', 'test'])
def test_code_in_a_checkpoint_is_not_run(
    images, teacher, tmp_path, monkeypatch, way
):
    marker = tmp_path / 'was_run'
    path = tmp_path / 'evil' / 'epoch_1.pth'
    path.parent.mkdir()
    torch.save(dict(torch.load(teacher), more=Payload(marker)), path)
    config = run_config(
        images, distilled(path if way == 'teacher' else teacher), length=1
    )
    options = ['--resume', str(path)] if way == 'resume' else []
    if way == 'load_from':
        config.load_from = str(path)
    with pytest.raises(ValueError, match=r'GLOBAL posix.mkdir.*was refused'):
        if way == 'test':
            evaluate(monkeypatch, tmp_path / 'run', config, path)
        else:
            train(monkeypatch, tmp_path / 'run', config, *options)
    assert not marker.exists()


def test_config_text_in_a_checkpoint_is_not_run(images, tmp_path, monkeypatch):
    marker = tmp_path / 'was_run'
    config = run_config(images, classifier(), length=1)
    train(monkeypatch, tmp_path / 'run', config)
    path = tmp_path / 'run' / 'epoch_1.pth'
    content = torch.load(path, weights_only=False)
    # MMEngine executes this text when it resumes.
    content['meta']['config'] = f'import os; os.mkdir({str(marker)!r})'
    torch.save(content, path)
    config = run_config(images, classifier(), length=2)
    train(monkeypatch, tmp_path / 'run', config, '--resume')
    assert (tmp_path / 'run' / 'epoch_2.pth').exists()
    assert not marker.exists()


@pytest.mark.parametrize('has_skip', [True, False])
def test_the_random_state_is_put_back_after_the_skipped_batches(has_skip):
    class Batches:
        number = 0

        def __next__(self):
            self.number += 1
            return self.number

        def skip_iter(self, number):
            self.number += number

    events = []
    iterator = RestoresAfterSkip(Batches(), 2, lambda: events.append('back'))
    if has_skip:
        iterator.skip_iter(2)
    else:
        assert [next(iterator), next(iterator)] == [1, 2]
    assert events == []
    assert [next(iterator), next(iterator)] == [3, 4]
    assert events == ['back']
