"""``test`` and ``agreement`` look at no weights that do not fit."""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import detector_config, load_tool
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

HOOKS = str(Path(__file__).parents[1] / 'test_hooks')
sys.path.insert(0, HOOKS)

from toy_runs import (  # noqa: E402
    classifier,
    distilled,
    evaluate,
    make_images,
    run_config,
    save_teacher,
    write_config,
)

sys.path.remove(HOOKS)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('images'))


@pytest.fixture(autouse=True)
def no_traces():
    """What a tool leaves in its process must not reach other tests."""
    yield
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        manager._instance_dict.clear()


@pytest.fixture
def scored(monkeypatch):
    """What :meth:`Runner.test` gave of every test."""
    found, test = [], Runner.test
    monkeypatch.setattr(
        Runner, 'test', lambda runner: found.append((runner, test(runner)))
    )
    return found


def weights_of(path):
    return torch.load(path)['state_dict']


@pytest.fixture
def checkpoint(tmp_path):
    return save_teacher(tmp_path / 'student.pth')


def other(depth):
    model = classifier()
    model['backbone']['depth'] = depth
    return model


def test_weights_of_another_model_are_not_scored(
    images, checkpoint, tmp_path, monkeypatch, scored
):
    config = run_config(images, other(14), length=1)
    with pytest.raises(SystemExit) as end:
        evaluate(monkeypatch, tmp_path / 'run', config, checkpoint)
    text = end.value.code
    assert text.startswith(f'test: checkpoint {checkpoint} does not fit conf')
    assert 'Missing keys (' in text and 'teacher.' not in text
    assert not scored


def test_a_head_of_other_classes_is_not_scored(
    images, checkpoint, tmp_path, monkeypatch, scored
):
    model = classifier()
    model['head']['num_classes'] = 5
    config = run_config(images, model, length=1)
    with pytest.raises(SystemExit, match=r'(?s)Keys of another shape.*head'):
        evaluate(monkeypatch, tmp_path / 'run', config, checkpoint)
    assert not scored


def test_a_classifiers_weights_are_none_of_a_detector(checkpoint):
    tool = load_tool('test')
    init_default_scope('mmdet')
    runner = SimpleNamespace(model=MODELS.build(detector_config()))
    hook = tool.FitHook('my.py', 'x.pth')
    with pytest.raises(SystemExit, match='x.pth does not fit config my.py'):
        hook.after_load_checkpoint(runner, torch.load(checkpoint))


def bare(weights):
    return weights


def behind_a_prefix(weights):
    return dict(state_dict={f'module.{k}': v for k, v in weights.items()})


def of_an_early_version(weights):
    """With what a loss had learned, and no count of batches."""
    kept = {
        key: value
        for key, value in weights.items()
        if not key.endswith('num_batches_tracked')
    }
    return dict(state_dict=dict(kept, **{'distiller.0.kd.x': torch.ones(1)}))


@pytest.mark.parametrize('form', [bare, behind_a_prefix, of_an_early_version])
@pytest.mark.parametrize('average', [False, True])
def test_weights_that_fit_in_any_form_are_scored(
    images, checkpoint, tmp_path, monkeypatch, scored, form, average
):
    weights = weights_of(checkpoint)
    torch.save(form(dict(weights)), tmp_path / 'other.pth')
    config = run_config(images, distilled(checkpoint), length=1)
    if average:
        # It scores its own copy of what was loaded.
        config.custom_hooks = [dict(type='EMAHook')]
    for path in (checkpoint, tmp_path / 'other.pth'):
        evaluate(monkeypatch, tmp_path / 'run', config, path)
    assert scored[0][1] == scored[1][1]
    for runner, _ in scored:
        # The average was in the model's place while it was scored.
        held = [h.ema_model for h in runner.hooks if isinstance(h, EMAHook)]
        own = (held[0].module if held else runner.model).state_dict()
        for key, value in weights.items():
            if not key.endswith('num_batches_tracked'):
                assert torch.equal(own[key], value), key


def test_the_model_inside_of_augmentation_is_judged(checkpoint):
    tool = load_tool('test')
    init_default_scope('mmpretrain')
    model = dict(type='AverageClsScoreTTA', module=classifier())
    runner = SimpleNamespace(model=MODELS.build(model))
    content = torch.load(checkpoint)
    tool.FitHook('my.py', 'x.pth').after_load_checkpoint(runner, content)
    loaded = runner.model.module.state_dict()
    assert torch.equal(
        loaded['head.fc.weight'], weights_of(checkpoint)['head.fc.weight']
    )


def agreement(monkeypatch, *arguments):
    tool = load_tool('analysis_tools/teacher_agreement')
    monkeypatch.setattr(sys, 'argv', ['tool', *map(str, arguments)])
    return tool.main()


def test_agreement_refuses_what_it_cannot_compare(
    images, checkpoint, tmp_path, monkeypatch, capsys
):
    plain = write_config(tmp_path, run_config(images, classifier()))
    config = run_config(images, distilled(checkpoint))
    pair = write_config(tmp_path, config)
    config = copy.deepcopy(config)
    config.model.student.backbone.depth = 14
    unlike = write_config(tmp_path, config)
    (tmp_path / 'README.md').touch()
    for arguments, message in (
        ((plain, checkpoint), 'no distillation: its model is a ImageClassif'),
        ((tmp_path / 'gone.py', checkpoint), "gone.py' does not exist"),
        ((tmp_path / 'README.md', checkpoint), 'agreement: '),
        ((pair, tmp_path / 'gone.pth'), 'gone.pth'),
        ((unlike, checkpoint), f'{checkpoint} does not fit the model of'),
    ):
        assert agreement(monkeypatch, *arguments) == 1
        error = capsys.readouterr().err
        assert 'agreement: ' in error and message in error
    assert agreement(monkeypatch, pair, checkpoint) == 0
    assert '"tau": ' in capsys.readouterr().out


def test_agreement_refuses_data_without_a_sample(
    images, checkpoint, tmp_path, monkeypatch, capsys
):
    config = run_config(images, distilled(checkpoint))
    config.test_dataloader.drop_last = True
    config.test_dataloader.batch_size = 99
    path = write_config(tmp_path, config)
    assert agreement(monkeypatch, path, checkpoint) == 1
    assert 'the data have no images to compare' in capsys.readouterr().err
