"""mmrkkd distill: from a plain config to a plain student."""

import argparse
import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import classifier_config
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from small_runs import (
    CLASSES,
    draw_images,
    random_weights,
    student_config,
)

import mmrkkd
from mmrkkd.checkpoint import locks, read_training_state
from mmrkkd.cli import add_change_option, change_config
from mmrkkd.commands import work_dir
from mmrkkd.commands.distill import scores_text
from mmrkkd.commands.methods import PREFIXES, method_names, read_method
from mmrkkd.commands.naming_layers import saying_how_to_name_layers
from mmrkkd.commands.program import main
from mmrkkd.commands.wrapping import Distillation, wrap
from mmrkkd.distillers.model_config import whole_model
from mmrkkd.losses import ATLoss, build_loss
from mmrkkd.losses.feature.base import LayersError

ROOT = Path(__file__).parents[2]
METHODS = ROOT / 'configs' / '_base_' / 'methods'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images, a student's and a teacher's config, a checkpoint."""
    folder = tmp_path_factory.mktemp('distill')
    draw_images(folder)
    config = student_config(folder)
    config.dump(folder / 'student.py')
    config.model = classifier_config(depth=14)
    config.dump(folder / 'teacher.py')
    random_weights(config.model, folder / 'teacher.pth')
    return folder


@pytest.fixture(autouse=True)
def at_home(folder, monkeypatch):
    """Commands are given in the folder of the files."""
    monkeypatch.chdir(folder)
    yield
    for manager in (DefaultScope, MMLogger):
        manager._instance_dict.clear()


def run(*arguments):
    return main(
        [
            'distill',
            'student.py',
            '--teacher',
            'teacher.py',
            'teacher.pth',
            *arguments,
        ]
    )


DETECTORS = ('detector', 'dense detector')

# -- methods ----------------------------------------------------------------


@pytest.mark.parametrize('kind', PREFIXES)
def test_every_method_has_settings_that_build(kind):
    names = method_names(kind)
    assert {'kd', 'rkkd', 'lra'} <= set(names)
    assert ('dkd' in names) == ('dense_' not in PREFIXES[kind])
    for name in names:
        method = read_method(name, kind)
        losses = method.losses
        for loss in [losses] if isinstance(losses, dict) else losses:
            build_loss(loss)
        assert method.source.parent == METHODS


def test_settings_are_those_of_what_the_student_is():
    kinds = ('classifier', 'classifier of ImageNet', 'detector')
    found = [read_method('rkkd', kind) for kind in kinds]
    assert [method.losses.temperature for method in found] == [4, 1, 1]
    assert [method.task_weight for method in found] == [0.1, 0.5, 1]
    # A sigmoid's scores are decided one by one.
    assert read_method('kd', 'dense detector').losses.type == (
        'mmrkkd.BinaryKDLoss'
    )
    # Sums over maps have weights for a kind of detector.
    weights = [
        [getattr(read_method(name, kind).losses, key) for kind in DETECTORS]
        for name, key in (
            ('fgd', 'foreground_weight'),
            ('mgd', 'loss_weight'),
            ('pkd', 'loss_weight'),
        )
    ]
    assert weights == [[5e-5, 1e-3], [5e-7, 2e-5], [6, 10]]
    # What has no settings for ImageNet keeps those of CIFAR-100.
    assert read_method('lra', 'classifier of ImageNet').source.stem == 'lra'
    with pytest.raises(ValueError, match="no method 'crld' for a detector"):
        read_method('crld', 'detector')


def test_a_shipped_config_has_the_settings_of_its_method():
    folder = ROOT / 'configs' / 'detection' / 'faster_rcnn'
    path = folder / 'rkkd_faster-rcnn_r50-mv2_fpn_180k_coco.py'
    model = Config.fromfile(path).model
    method = read_method('rkkd', 'detector')
    assert model.losses == method.losses
    assert model.task_weight == method.task_weight


# -- classifiers ------------------------------------------------------------


def test_dry_run_tells_the_settings_and_writes_nothing(folder, capsys):
    before = sorted(folder.rglob('*'))
    options = ('--cfg-options', 'model.losses.temperature=2.5')
    assert run('--dry-run', *options) == 0
    text = capsys.readouterr().out
    assert f'student: ImageClassifier, {folder}/student.py' in text
    assert f'teacher: {folder}/teacher.py, {folder}/teacher.pth' in text
    assert f'rkkd for a classifier, {METHODS}/rkkd.py' in text
    assert "'temperature': 2.5, 'kd_weight': 0.9" in text
    assert 'task_weight: 0.1' in text
    assert 'training: 1 epochs, 4 images a step' in text
    assert 'work directory: work_dirs/rkkd_student' in text
    assert 'KDLoss(temperature=2.5' in text
    for term in ('loss_kd: ', 'loss_rank: ', 'kd/tau: '):
        assert term in text
    assert sorted(folder.rglob('*')) == before


@pytest.mark.parametrize(
    ('method', 'term'),
    [
        ('fitnet', 'loss_fitnet'),
        ('reviewkd', 'loss_reviewkd'),
        ('rkd', 'loss_rkd_angle'),
        ('catkd', 'loss_catkd'),
        ('norm', 'loss_norm'),
    ],
)
def test_features_of_a_classifier_are_those_that_it_puts_out(
    method, term, capsys
):
    assert run('--dry-run', '--method', method) == 0
    assert f'{term}: ' in capsys.readouterr().out


def test_a_plain_student_is_left_beside_the_run(folder, capsys):
    result = mmrkkd.distill(
        student='student.py',
        teacher='teacher.py',
        checkpoint='teacher.pth',
        method='kd',
        work_dir='out',
    )
    capsys.readouterr()
    assert result.config == Path('out/distill.py')
    assert 0 <= result.metrics['accuracy/top1'] <= 100
    # Weights and config stand alone: no mmrkkd distiller in either.
    plain = Config.fromfile(result.student_config)
    assert whole_model(plain) == whole_model(student_config('.'))
    assert 'work_dir' not in plain
    content = torch.load(result.checkpoint, weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        MODELS.build(plain.model).load_state_dict(content['state_dict'])
    last = torch.load('out/epoch_1.pth', weights_only=False)['state_dict']
    for key, value in content['state_dict'].items():
        assert torch.equal(value, last[key])
    # They score what the run said.
    assert main(['test', 'out/student.py', 'out/student.pth']) == 0
    (path,) = Path('work_dirs/student').glob('*/*.json')
    scored = json.loads(path.read_text())
    assert scored['accuracy/top1'] == result.metrics['accuracy/top1']


def test_the_written_config_can_be_edited_and_run_again(folder, capsys):
    assert run('--work-dir', 'again') == 0
    config = Config.fromfile('again/distill.py')
    assert config.model.type == 'mmrkkd.KDClassifier'
    assert config.model.teacher.checkpoint == str(folder / 'teacher.pth')
    config.model.losses.rank_weight = 0.5
    config.dump('again/edited.py')
    options = ['--work-dir', 'edited']
    assert main(['train', 'again/edited.py', *options]) == 0
    assert Path('edited/epoch_1.pth').is_file()


NEW_STYLE = """
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import LoadImageFromFile, PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import (
    CrossEntropyLoss, GlobalAveragePooling, ImageClassifier, LinearClsHead)
from torch.optim import SGD

from mmrkkd.backbones import CIFARResNet
from mmrkkd.datasets import ImageFolder

default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3)
model = dict(
    type=ImageClassifier,
    backbone=dict(type=CIFARResNet, depth=8),
    neck=dict(type=GlobalAveragePooling),
    head=dict(
        type=LinearClsHead, num_classes=3, in_channels=64,
        loss=dict(type=CrossEntropyLoss)))
train_dataloader = dict(
    batch_size=4, num_workers=0, collate_fn=dict(type=default_collate),
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(
        type=ImageFolder, data_root='FOLDER', split='train',
        pipeline=[dict(type=LoadImageFromFile), dict(type=PackInputs)]))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05))
log_level = 'WARNING'
"""


def test_new_style_configs_are_distilled_too(folder, capsys):
    Path('new.py').write_text(NEW_STYLE.replace('FOLDER', str(folder)))
    arguments = ['new.py', '--teacher', 'teacher.py', 'teacher.pth']
    assert main(['distill', *arguments, '--work-dir', 'new']) == 0
    assert 'not evaluated: the config has no val_' in capsys.readouterr().out
    plain = Config.fromfile('new/student.py').model
    assert plain.type == 'mmpretrain.models.ImageClassifier'
    weights = torch.load('new/student.pth', weights_only=True)['state_dict']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        MODELS.build(plain).load_state_dict(weights)
    options = ['--work-dir', 'new_again']
    assert main(['train', 'new/distill.py', *options]) == 0


def test_resume_goes_on_and_another_run_is_left_alone(capsys):
    assert run('--work-dir', 'cut') == 0
    Path('cut/student.pth').unlink()
    capsys.readouterr()
    assert run('--work-dir', 'cut') == 1
    assert 'cut holds a distillation already' in capsys.readouterr().err
    assert run('--work-dir', 'cut', '--resume', '--method', 'kd') == 1
    error = capsys.readouterr().err
    assert "model.losses.type ('mmrkkd.RankKDLoss' there, now" in error
    assert not Path('cut/student.pth').exists()
    more = ('--cfg-options', 'train_cfg.max_epochs=2')
    assert run('--work-dir', 'cut', '--resume', *more) == 0
    assert 'from epoch_2.pth' in capsys.readouterr().out
    assert Path('cut/student.pth').is_file()
    # And the same again, when nothing is left to do.
    assert run('--work-dir', 'cut', '--resume', *more) == 0
    assert 'from epoch_2.pth' in capsys.readouterr().out


def test_a_second_run_in_a_process_logs_into_its_own_folder(folder):
    config = Config.fromfile('student.py')
    # As the usual configs have it: every run's is called the same.
    config.visualizer = dict(
        type='UniversalVisualizer',
        name='visualizer',
        vis_backends=[dict(type='LocalVisBackend')],
    )
    logs = []
    for name, rate in (('first', 0.25), ('second', 0.125)):
        mmrkkd.distill(
            *(config, 'teacher.py', 'teacher.pth', 'kd'),
            work_dir=name,
            cfg_options={
                'optim_wrapper.optimizer.lr': rate,
                'default_hooks.logger': dict(type='LoggerHook', interval=1),
            },
        )
        logs.append(folder / name)
    for run, rate in zip(logs, (0.25, 0.125)):
        (log,) = run.glob('*/vis_data/scalars.json')
        entries = map(json.loads, log.read_text().splitlines())
        steps = [entry for entry in entries if 'lr' in entry]
        assert [entry['lr'] for entry in steps] == [rate] * 3


def test_a_folder_of_another_training_is_left_alone(folder, capsys):
    other = folder / 'other'
    other.mkdir()
    (other / 'epoch_3.pth').write_bytes(b'')
    assert run('--work-dir', 'other') == 1
    assert 'holds a run of something else' in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ['epoch_3.pth']


def test_a_run_that_saves_nothing_leaves_its_last_weights(capsys):
    options = ('--cfg-options', 'default_hooks.checkpoint=None')
    assert run('--work-dir', 'unsaved', *options) == 0
    assert 'from the end of the run' in capsys.readouterr().out
    content = torch.load('unsaved/student.pth', weights_only=True)
    assert content['meta']['dataset_meta']['classes'] == CLASSES


# -- bad input --------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['gone.py', '--teacher', 'teacher.py', 'teacher.pth'],
            "config 'gone.py' does not exist",
        ),
        (
            ['student.py', '--teacher', 'gone.py', 'teacher.pth'],
            "config 'gone.py' does not exist",
        ),
        (
            ['student.py', '--teacher', 'teacher.py', 'gone.pth'],
            "checkpoint 'gone.pth' does not exist",
        ),
        (
            [
                'student.py',
                '--teacher',
                'teacher.py',
                'teacher.pth',
                '--method',
                'rkkdd',
            ],
            "no method 'rkkdd' for a classifier: did you mean 'rkkd'?",
        ),
        (
            [
                'student.py',
                '--teacher',
                'teacher.py',
                'teacher.pth',
                '--method',
                'mlkd',
            ],
            'compares 2 views of each image',
        ),
        (
            [
                'student.py',
                '--teacher',
                'teacher.py',
                'teacher.pth',
                '--method',
                'crd',
            ],
            "'crd' keeps a row for each image, and the data set of "
            'train_dataloader does not number them',
        ),
        (
            ['data.py', '--teacher', 'teacher.py', 'teacher.pth'],
            'data.py has no model',
        ),
        (
            ['student.py', '--teacher', 'data.py', 'teacher.pth'],
            'must be a config with a model',
        ),
        (
            ['kd.py', '--teacher', 'teacher.py', 'teacher.pth'],
            'kd.py is a distillation already: run it as it is with ',
        ),
        (
            ['student.py', '--teacher', 'detector.py', 'teacher.pth'],
            'the student is a classifier (ImageClassifier) and the teacher a '
            'detector (FasterRCNN)',
        ),
        (
            ['odd.py', '--teacher', 'teacher.py', 'teacher.pth'],
            "the student 'NoSuchModel' is in no installed package",
        ),
        (
            [
                'student.py',
                '--teacher',
                'teacher.py',
                'teacher.pth',
                '--cfg-options',
                'train_dataloader.dataset.data_root=gone',
            ],
            'train_dataloader: no folder',
        ),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    folder, arguments, message, capsys
):
    config = student_config(folder)
    data = {key: config[key] for key in config if key != 'model'}
    Config(data).dump('data.py')
    model = classifier_config()
    teacher = dict(config=model, allow_random_weights=True)
    config.model = dict(
        type='mmrkkd.KDClassifier',
        student=model,
        teacher=teacher,
        losses=dict(type='mmrkkd.KDLoss'),
    )
    config.dump('kd.py')
    config.model = dict(type='NoSuchModel')
    config.dump('odd.py')
    Config(dict(default_scope='mmdet', model=dict(type='FasterRCNN'))).dump(
        'detector.py'
    )
    before = sorted(folder.rglob('*'))
    assert main(['distill', *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith('mmrkkd distill: ') and message in error
    assert sorted(folder.rglob('*')) == before


# -- names of configs -------------------------------------------------------


def test_configs_of_packages_and_of_ours_are_found_by_name(folder):
    teacher = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
    ours = 'configs/classification/cifar100/resnet20_1xb64-240e_cifar100.py'
    plan = wrap(ours, teacher, 'teacher.pth')
    assert plan.config.model.teacher.config == teacher
    assert plan.config.model.student.backbone.depth == 20
    assert plan.kind == 'classifier'
    plan = wrap(teacher, ours, 'teacher.pth')
    assert plan.config.model.teacher.config == str(ROOT / ours)
    assert Path(plan.config.filename).name == 'resnet18_8xb16_cifar10.py'


def test_a_config_object_is_not_changed(folder):
    config = student_config(folder)
    before = copy.deepcopy(config._cfg_dict)
    plan = wrap(config, dict(model=classifier_config()), 'teacher.pth')
    assert config._cfg_dict == before
    assert plan.config.model.student == before.model
    assert plan.config.model.teacher.config.model == before.model


def test_edits_of_the_config_are_kept_when_a_run_goes_on(capsys):
    assert run('--work-dir', 'by_hand') == 0
    path = Path('by_hand/distill.py')
    text = path.read_text().replace('max_epochs=1', 'max_epochs=7')
    assert 'max_epochs=7' in text
    path.write_text(text)
    assert run('--work-dir', 'by_hand', '--resume') == 0
    assert 'train_cfg.max_epochs (7 there, now 1)' in capsys.readouterr().out
    assert Path('by_hand/distill_before.py').read_text() == text
    # What MMEngine dumps of a run, --resume included, lies elsewhere.
    config = Config.fromfile(path)
    assert config.train_cfg.max_epochs == 1
    assert not config.get('resume') and not config.get('load_from')
    Path('by_hand/distill_before.py').unlink()
    assert run('--work-dir', 'by_hand', '--resume') == 0
    assert not Path('by_hand/distill_before.py').exists()


def test_a_start_that_failed_is_in_nobodys_way(capsys):
    typo = ('--cfg-options', 'model.losses.heat=2')
    with pytest.raises(TypeError, match='heat'):
        run('--work-dir', 'failed', *typo)
    assert Path('failed/distill.py').is_file()
    assert run('--work-dir', 'failed') == 0
    assert 'heat' not in Path('failed/distill.py').read_text()


def test_a_copied_run_leaves_its_own_student():
    assert run('--work-dir', 'origin') == 0
    shutil.copytree('origin', 'copied')
    Path('copied/student.pth').unlink()
    (checkpoint,) = Path('copied').glob('epoch_*.pth')
    content = read_training_state(checkpoint)
    name = 'backbone.conv1.weight'
    content['state_dict'][name].fill_(77.0)
    torch.save(content, checkpoint)
    assert run('--work-dir', 'copied', '--resume') == 0
    weights = torch.load('copied/student.pth', weights_only=True)
    assert weights['state_dict'][name].eq(77).all()


def test_data_root_moves_data_sets_that_have_no_common_variable(tmp_path):
    config = Config.fromfile('student.py')
    assert config.get('data_root') is None
    change_config(config, dict(data_root=str(tmp_path)))
    root = config.train_dataloader.dataset.data_root
    assert root.rstrip('/') == str(tmp_path)
    config = Config.fromfile('student.py')
    config.val_dataloader = copy.deepcopy(config.train_dataloader)
    config.val_dataloader.dataset.data_root = 'elsewhere'
    with pytest.raises(ValueError, match='those of the config lie in .* and'):
        change_config(config, dict(data_root=str(tmp_path)))


def test_an_option_that_is_almost_a_setting_is_told(capsys):
    config = Config.fromfile('student.py')
    options = {
        'modle.x': 1,
        'optim_wrapper.optimiser.lr': 3,
        # New, and like no other.
        'load_from': 'x.pth',
        'optim_wrapper.clip_grad.max_norm': 2,
    }
    change_config(config, options)
    said = capsys.readouterr()
    said = said.out + said.err
    assert "no 'modle' there; did you mean 'model'?" in said
    assert "no 'optimiser' there; did you mean 'optimizer'?" in said
    assert said.count('did you mean') == 2


def test_layers_that_do_not_fit_are_named_by_an_option(folder, capsys):
    """Methods have the layers of the models that they were published with."""
    config = student_config(folder)
    config.model.backbone = dict(
        type='ResNet', depth=18, base_channels=4, stem_channels=4
    )
    config.model.head.in_channels = 32
    config.dump('resnet.py')
    random_weights(config.model, folder / 'resnet.pth')
    arguments = ['resnet.py', '--teacher', 'resnet.py', 'resnet.pth']
    arguments += ['--method', 'ofd', '--work-dir', 'named']
    layers = "model.losses.student_layers=['before backbone.layer4.1.relu[1]']"
    for dry in ([], ['--dry-run']):
        assert main(['distill', *arguments, *dry]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("mmrkkd distill: the teacher's layer 'backb")
        assert f'. Layers are named by --cfg-options "{layers}"' in error
        assert 'model.losses.teacher_layers' in error
    arguments += ['--cfg-options', layers, '--dry-run']
    assert main(['distill', *arguments]) == 0
    assert 'loss_ofd: ' in capsys.readouterr().out


def test_of_several_losses_the_one_is_named_whose_layers_do_not_fit():
    at = ATLoss('a')
    losses = [dict(type='mmrkkd.KDLoss'), dict(type='mmrkkd.ATLoss')]
    config = Config(dict(model=dict(losses=losses)))
    plan = Distillation(config, read_method('at', 'classifier'), 'classifier')
    with (
        pytest.raises(ValueError, match=r'^no\. .*losses\.1\.student_layers='),
        saying_how_to_name_layers(plan),
    ):
        raise LayersError('no', at)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ("custom_hooks=[dict(type='EMAHook')]", 'custom_hooks: a dict cannot'),
        ("a.b=[dict(type='X',c=1)]", 'a.b: a dict .* with a.b in it'),
        ("a=dict(type='X')", 'config that inherits, _base_ = '),
        ('a={"type": 1}', 'a: a dict cannot be given on the command line'),
        ('a=f(1,2)', r'a: a value is .* closed, .*, got f\(1,2\)'),
        ('a=[(1,2]', r'closed, .*, got \[\(1,2\]'),
        ('a', "--cfg-options takes KEY=VALUE, got 'a'"),
    ],
)
def test_an_option_that_cannot_be_read_is_told(option, message, capsys):
    arguments = ['student.py', '--teacher', 'teacher.py', 'teacher.pth']
    with pytest.raises(SystemExit) as ended:
        main(['distill', *arguments, '--cfg-options', option])
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_options_are_read_as_mmengine_reads_them_with_their_spaces():
    options = {
        'a=[(1, 2), [x]]': [(1, 2), ['x']],
        "a=['before b.relu[1]', c]": ['before b.relu[1]', 'c'],
        'a=my images/of cats': 'my images/of cats',
        "a='None'": None,
        'a=epoch_{:02d}.pth': 'epoch_{:02d}.pth',
        'a=x=1': 'x=1',
        'a=': '',
    }
    for text, value in options.items():
        parser = argparse.ArgumentParser()
        add_change_option(parser)
        args = parser.parse_args(['--cfg-options', text, 'b=1'])
        assert args.cfg_options == dict(a=value, b=1)


@pytest.mark.parametrize(
    ('name', 'text'), [('broken.py', 'model = dict('), ('mmdett::x/y.py', '')]
)
def test_a_config_that_cannot_be_read_is_named(name, text, capsys):
    if text:
        Path(name).write_text(text)
    arguments = [name, '--teacher', 'teacher.py', 'teacher.pth']
    assert main(['distill', *arguments]) == 1
    assert f"config '{name}' cannot be read: " in capsys.readouterr().err


def test_a_teacher_that_cannot_be_read_leaves_nothing_behind(capsys):
    Path('teacher.md').write_text('# A page of text, and no weights.')
    arguments = ['student.py', '--teacher', 'teacher.py', 'teacher.md']
    assert main(['distill', *arguments, '--work-dir', 'unread']) == 1
    error = capsys.readouterr().err
    assert error.startswith('mmrkkd distill: ') and 'teacher.md is' in error
    assert not Path('unread').exists()


def test_publishing_what_is_not_there_is_one_line(capsys):
    assert main(['publish', 'nope.pth', 'out.pth']) == 1
    error = capsys.readouterr().err
    assert error.startswith('mmrkkd publish: ') and 'nope.pth' in error


def test_a_folder_in_which_a_run_begins_is_held(tmp_path):
    """Before there is a log or a checkpoint, and until the run's end."""
    config = Config(dict(model=dict(type='A'), work_dir=str(tmp_path)))
    work_dir.claim(config, False)
    other = subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys\n'
            'from mmengine.config import Config\n'
            'from mmrkkd.commands import work_dir\n'
            "config = Config(dict(model=dict(type='B')))\n"
            'config.work_dir = sys.argv[1]\n'
            'work_dir.claim(config, True)\n',
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert 'is being trained in by another process' in other.stderr
    assert Config.fromfile(tmp_path / 'distill.py').model.type == 'A'
    locks.let_go(tmp_path)
    # What was edited before the first line of a log is kept, each time.
    for number, kind in enumerate('BC', 1):
        config.model.type = kind
        work_dir.claim(config, False)
        locks.let_go(tmp_path)
        suffix = '' if number == 1 else f'_{number}'
        kept = Config.fromfile(tmp_path / f'distill_before{suffix}.py')
        assert kept.model.type == 'AB'[number - 1]


def test_what_an_evaluation_said():
    # -1: no object is large.
    some = {'accuracy/top1': 50.04321, 'x': 1, 'coco/bbox_mAP_l': -1.0}
    assert scores_text(some, True) == ('accuracy/top1 50.04, x 1')
    assert 'the config has no val_evaluator' in scores_text({}, False)
    # As COCO's is of a detector without a detection.
    assert 'it found nothing' in scores_text({}, True)
