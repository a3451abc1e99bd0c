"""The ablation: cells, their processes, the table, the curves."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrkkd.report import Curve, draw_curves, means_of
from mmrkkd.report.curves import band

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

import ablation  # noqa: E402
from experiments import (  # noqa: E402
    ExperimentError,
    jobs,
    methods,
    pool,
    records,
    report,
)
from experiments.cells import differences, make_cells  # noqa: E402
from experiments.progress import Progress  # noqa: E402

from mmrkkd.evaluation.summary import paired, spread, summarize  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

OF_PACKAGE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
# Behaves like tools/train.py towards the ablation, and needs no second. The
# accuracy after epoch e is 10 e + 100 gain + seed.
TRAIN = """
import json, os, signal, sys, time
from pathlib import Path
from mmengine.config import Config
config = Config.fromfile(sys.argv[1])
folder = Path(config.work_dir)
resume = '--resume' in sys.argv
last = folder / 'last_checkpoint'
start = int(last.read_text().split('_')[-1][:-4]) if resume else 0
attempt = len(list(folder.glob('2*')))
log = folder / f'2026_{attempt}' / 'vis_data'
log.mkdir(parents=True)
print('starts after epoch', start, 'threads', os.environ['OMP_NUM_THREADS'])
how = config.get('how')
for epoch in range(start + 1, config.train_cfg.max_epochs + 1):
    with open(log / 'scalars.json', 'a') as file:
        for i in (1, 2):
            print(f'Epoch(train)  [{epoch}][{i}/2]  lr: 1e-1  loss: 0.5')
            train = {'loss': 0.5, 'epoch': epoch, 'iter': 2 * epoch + i,
                     'step': 2 * epoch + i}
            if 'teacher' in config.model:
                train.update({'kd/kl': 1 / epoch, 'kd/tau': 0.1 * epoch + i,
                              'kd/grad_share_rank': 0.25 * i})
            file.write(json.dumps(train) + '\\n')
        if how == 'crash':
            raise ZeroDivisionError('the cause')
        if how == 'killed once' and epoch == 2 and not resume:
            os.kill(os.getpid(), signal.SIGKILL)
        if how == 'waits once' and epoch == 2 and not resume:
            sys.stdout.flush()
            time.sleep(60)
        value = 10 * epoch + 100 * config.gain + config.randomness.seed
        file.write(json.dumps({'accuracy/top1': value, 'step': epoch}) + '\\n')
    (folder / f'epoch_{epoch}.pth').touch()
    last.write_text(str(folder / f'epoch_{epoch}.pth'))
"""
COMPARE = """
import json, sys
from mmengine.config import Config
config = Config.fromfile(sys.argv[1])
assert config.test_dataloader == config.val_dataloader
assert config.model.student.type == 'Student', config.model
print(f'noise about {config.model.teacher.checkpoint}', file=sys.stderr)
print(json.dumps(dict(tau=0.5, top1_agreement=0.75, kl=0.1, images=3)))
"""
CONFIG = """
model = {model}
gain = {gain}
how = {how!r}
data_root = 'data/'
train_cfg = dict(by_epoch=True, max_epochs=3)
val_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(type='Accuracy')
"""
STUDENT = dict(type='Student')
KD = dict(
    type='mmrkkd.KDClassifier',
    student=STUDENT,
    teacher=dict(config='t.py', checkpoint='t.pth'),
    losses=dict(type='mmrkkd.KDLoss'),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with configs of pretended trainings; work goes there."""
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'compare.py').write_text(COMPARE)
    monkeypatch.setattr(jobs, 'TRAIN', tmp_path / 'train.py')
    monkeypatch.setattr(jobs, 'COMPARE', tmp_path / 'compare.py')
    monkeypatch.setattr(pool, 'SECONDS_BETWEEN_LOOKS', 0.02)
    monkeypatch.chdir(tmp_path)
    write_config('ce_tiny.py', STUDENT)
    write_config('kd_tiny.py', KD, 0.01)
    return tmp_path


def write_config(name, model, gain=0.0, how=None):
    Path(name).write_text(CONFIG.format(model=model, gain=gain, how=how))


def run(*arguments):
    return ablation.main([*map(str, arguments), '--work-dir', 'out'])


def content(name='out/ablation.json'):
    return json.loads(Path(name).read_text())


@pytest.mark.slow
def test_methods_times_seeds_are_trained_compared_and_tabled(folder, capsys):
    assert run('ce_tiny.py', 'kd_tiny.py', '--seeds', 0, 2) == 0
    results = {(r['label'], r['seed']): r for r in content()['results']}
    for label, seed in results:
        # Wherever the folder is moved to.
        path = results[label, seed]['checkpoint']
        assert path.startswith(f'{label}/seed{seed}/')
        assert (Path('out') / path).is_file()
    assert {key: r['last'] for key, r in results.items()} == {
        ('ce', 0): 30,
        ('ce', 2): 32,
        ('kd', 0): 31,
        ('kd', 2): 33,
    }
    # The student alone is compared with the baseline's teacher.
    assert results['ce', 0]['agreement']['tau'] == 0.5
    assert results['kd', 0]['gradient_shares'] == {'rank': 0.375}
    assert results['kd', 0]['attempts'][0]['versions']['torch']
    assert 'hardware' in results['kd', 0]['attempts'][0]
    text = Path('out/ablation.md').read_text()
    assert text.strip() in capsys.readouterr().out
    assert '31.00 ± 1.41' in text and '32.00 ± 1.41' in text
    assert '-1.00 ± 0.00' in text and '-1.00 -1.00' in text
    for picture in ('curves', 'differences'):
        assert f'({picture}.png)' in text
        with Image.open(f'out/{picture}.png') as image:
            assert len(image.convert('L').getcolors()) > 10


def test_finished_cells_are_not_trained_again(folder, capsys):
    assert run('ce_tiny.py', '--seeds', 0) == 0
    assert run('ce_tiny.py', '--seeds', 0, 1) == 0
    assert 'ce, seed 0: finished earlier' in capsys.readouterr().err
    log = Path('out/ce/seed0/train.log').read_text()
    assert log.count('starts after') == 1
    # Alone, without any teacher, there is nothing to compare with.
    assert content()['results'][0]['agreement'] == {}


def test_killed_cell_goes_on_from_its_last_checkpoint(folder):
    write_config('kd_tiny.py', KD, how='killed once')
    assert run('kd_tiny.py', 'ce_tiny.py', '--seeds', 0) == 1
    assert content()['missing'] == ['kd, seed 0']
    assert 'code -9' in content()['failures'][0]
    assert content()['results'][0]['label'] == 'ce'
    assert run('kd_tiny.py', 'ce_tiny.py', '--seeds', 0) == 0
    log = Path('out/kd/seed0/train.log').read_text()
    assert 'starts after epoch 1 ' in log
    result = content()['results'][0]
    assert len(result['attempts']) == 2 and result['last'] == 30
    assert '1 cells were interrupted' in Path('out/ablation.md').read_text()
    # What was trained twice counts once.
    series = means_of(records.log_of(Path('out/kd/seed0')), 'kd/kl')
    assert series == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


@pytest.mark.slow
def test_interrupted_ablation_stops_its_cells_and_goes_on(folder):
    write_config('kd_tiny.py', KD, how='waits once')
    (folder / 'driver.py').write_text(
        f'import sys; sys.path.insert(0, {TOOLS!r})\n'
        'import ablation\nfrom experiments import jobs\n'
        "jobs.TRAIN, jobs.COMPARE = 'train.py', 'compare.py'\n"
        "sys.exit(ablation.main(['kd_tiny.py', '--seeds', '0', "
        "'--work-dir', 'out']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, 'driver.py'],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    log = Path('out/kd/seed0/train.log')
    deadline = time.time() + 60
    while not (log.is_file() and '[2][2/2]' in log.read_text()):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.1)
    # Meanwhile nobody else may train this cell.
    assert run('kd_tiny.py', '--seeds', 0) == 1
    assert 'by another process' in content()['failures'][0]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and 'goes on from' in errors
    assert run('kd_tiny.py', '--seeds', 0) == 0
    assert 'starts after epoch 1 ' in log.read_text()
    assert content()['results'][0]['last'] == 30


def test_crash_of_one_cell_leaves_the_others_and_is_told(folder, capsys):
    write_config('bad_tiny.py', KD, how='crash')
    arguments = ('bad_tiny.py', 'kd_tiny.py', '--seeds', 0, '--jobs', 2)
    assert run(*arguments) == 1
    (failure,) = content()['failures']
    assert 'bad, seed 0: training ended with code 1' in failure
    assert 'ZeroDivisionError: the cause' in failure
    assert 'FAILED: bad, seed 0' in capsys.readouterr().err
    text = Path('out/ablation.md').read_text()
    assert 'NOT FINISHED: bad, seed 0' in text and '31.00' in text


def test_changed_config_under_the_same_label_is_refused(folder, capsys):
    assert run('kd_tiny.py', '--seeds', 0) == 0
    method = 'kd=kd_tiny.py:train_cfg.max_epochs=4'
    assert run(method, '--seeds', 0) == 1
    error = capsys.readouterr().err
    assert "config of 'kd' is not the one" in error
    assert 'train_cfg.max_epochs: 3 -> 4' in error
    assert 'another label' in error


def test_retrained_teacher_is_a_changed_config(folder, capsys):
    Path('t.pth').write_text('a teacher')
    assert run('kd_tiny.py', '--seeds', 0) == 0
    Path('t.pth').write_text('another teacher')
    assert run('kd_tiny.py', '--seeds', 0) == 1
    assert 'teacher.checkpoint_content' in capsys.readouterr().err


def test_foreign_folder_is_refused(folder, capsys):
    Path('out/kd/seed0').mkdir(parents=True)
    Path('out/kd/seed0/thesis.tex').write_text('precious')
    assert run('kd_tiny.py', '--seeds', 0) == 1
    assert 'not written by this tool' in capsys.readouterr().err
    assert Path('out/kd/seed0/thesis.tex').read_text() == 'precious'


def test_report_only_trains_nothing(folder):
    assert run('kd_tiny.py', '--seeds', 0) == 0
    Path('out/ablation.md').unlink()
    Path('out/curves.png').unlink()
    assert run('kd_tiny.py', '--seeds', 0, 1, '--report-only') == 1
    assert not Path('out/kd/seed1').exists()
    assert 'NOT FINISHED: kd, seed 1' in Path('out/ablation.md').read_text()
    assert Path('out/curves.png').is_file()


def test_unknown_metric_names_those_that_were_logged(folder):
    assert run('kd_tiny.py', '--seeds', 0, '--metric', 'coco/bbox_mAP') == 1
    assert 'accuracy/top1' in content()['failures'][0]
    # The training is kept, only the evaluation is repeated.
    assert run('kd_tiny.py', '--seeds', 0) == 0
    log = Path('out/kd/seed0/train.log').read_text()
    assert log.count('starts after') == 1


def test_sweep_file_names_cells_seeds_and_baseline(folder):
    Path('sweep.py').write_text(
        "seeds = [3]\nbaseline = 'plain'\n"
        "cfg_options = {'train_cfg.max_epochs': 2, 'gain': 0.1}\n"
        'cells = {\n'
        "    'plain': dict(config='ce_tiny.py'),\n"
        "    'kd+1': dict(config='kd_tiny.py', cfg_options={'gain': 0.2}),\n"
        '}\n'
    )
    assert run('sweep.py') == 0
    assert content()['baseline'] == 'plain' and content()['seeds'] == [3]
    assert [r['last'] for r in content()['results']] == [33, 43]
    assert content()['rows'][1]['difference']['mean'] == 10


def test_sweep_file_may_be_yaml(folder):
    Path('sub').mkdir()
    Path('sub/sweep.yaml').write_text(
        'seeds: [1]\ncells:\n  a:\n    config: ../kd_tiny.py\n'
        '  b:\n    config: kd_tiny.py\n    cfg_options: {x.y: 2}\n'
    )
    found, defaults = methods.parse_methods(['sub/sweep.yaml:gain=3'])
    assert defaults == dict(seeds=[1])
    assert [(m.label, m.options) for m in found] == [
        ('a', {'gain': 3}),
        ('b', {'gain': 3, 'x.y': 2}),
    ]
    assert all(m.config.samefile('kd_tiny.py') for m in found)


def test_sweep_file_may_be_json_on_one_line(folder):
    cells = dict(a=dict(config='kd_tiny.py', cfg_options={'x': 1}))
    Path('sweep.json').write_text(json.dumps(dict(seeds=[1], cells=cells)))
    (method,), defaults = methods.parse_methods(['sweep.json'])
    assert (method.label, method.options) == ('a', {'x': 1})
    assert defaults == dict(seeds=[1])


@pytest.mark.parametrize(
    'argument,label,options',
    [
        ('kd_tiny.py', 'kd', {}),
        ('my-kd=kd_tiny.py', 'my-kd', {}),
        (
            'x=kd_tiny.py:a.b=1e-3,c=[1,2],d=text,e=None',
            'x',
            {'a.b': 1e-3, 'c': [1, 2], 'd': 'text', 'e': None},
        ),
        ("x=kd_tiny.py:a={'b': (1, 2)}", 'x', {'a': {'b': (1, 2)}}),
        (f'{OF_PACKAGE}:a=1', 'faster-rcnn', {'a': 1}),
        (f'x={OF_PACKAGE}', 'x', {}),
    ],
)
def test_method_arguments(folder, argument, label, options):
    (method,), _ = methods.parse_methods([argument])
    assert (method.label, method.options) == (label, options)


def test_a_config_of_a_package_can_be_trained(folder):
    found, _ = methods.parse_methods([f'x={OF_PACKAGE}:gain=3'])
    (cell,) = make_cells(found, [0], folder, {})
    assert cell.config.model.type == 'FasterRCNN' and cell.config.gain == 3
    assert OF_PACKAGE in cell.by_hand


def test_shipped_configs_are_found_from_any_folder(folder):
    name = 'configs/classification/image_folder/channels.yml'
    found, defaults = methods.parse_methods([name])
    assert defaults['baseline'] == 'kd'
    assert {method.label for method in found} >= {'kd', 'all', 'top10'}
    assert all(method.config.is_file() for method in found)
    # What is given as a path is kept so, and a sweep may name ours too.
    config = 'configs/demo/faster-rcnn_r50_demo.py'
    Path('sweep.json').write_text(
        json.dumps(
            dict(
                cells=dict(
                    a=dict(config='kd_tiny.py'),
                    b=dict(config=config),
                    c=dict(config=OF_PACKAGE),
                )
            )
        )
    )
    found, _ = methods.parse_methods(['sweep.json', 'kd_tiny.py'])
    assert [str(method.config) for method in found] == [
        'kd_tiny.py',
        str(methods.find_config(config)),
        OF_PACKAGE,
        'kd_tiny.py',
    ]


@pytest.mark.parametrize('label', ['.', '..'])
def test_a_label_outside_of_the_work_folder_is_refused(folder, label):
    with pytest.raises(ExperimentError, match="neither '.' nor '..'"):
        methods.parse_methods([f'{label}=kd_tiny.py'])


def test_a_work_folder_that_is_a_file_is_named(folder, capsys):
    Path('out').write_text('precious')
    assert run('kd_tiny.py') == 1
    error = capsys.readouterr().err
    assert '--work-dir must be a folder, and out is a file' in error


def test_a_cells_config_that_is_not_there_is_named(folder):
    Path('sweep.json').write_text(
        json.dumps(dict(cells=dict(a=dict(config='gone.py'))))
    )
    with pytest.raises(ExperimentError, match="for cell 'a', and .*'gone.py'"):
        methods.parse_methods(['sweep.json'])


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['gone.py'], "config 'gone.py' does not exist"),
        (['kd'], "'kd' is no method"),
        (['kd_tiny.py', 'kd=ce_tiny.py'], "two methods are labelled 'kd'"),
        (['x=kd_tiny.py:a'], "'a' in the options 'a' is no KEY=VALUE"),
        (['sweep.py'], r"sweep.py is no sweep.*\['other'\]"),
    ],
)
def test_arguments_that_cannot_be_understood(folder, arguments, message):
    Path('sweep.py').write_text('cells = dict()\nother = 1\n')
    with pytest.raises(ExperimentError, match=message):
        methods.parse_methods(arguments)


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['--baseline', 'ce'], "one of the methods ['kd'], got 'ce'"),
        (['--seeds', 1, 1], '--seeds must be different numbers'),
        (['--cfg-options', 'train_cfg.max_epochs=0'], 'trains nothing'),
    ],
)
def test_errors_of_the_command_line(folder, capsys, arguments, message):
    assert run('kd_tiny.py', *arguments) == 1
    assert message in capsys.readouterr().err


def result(label, seed, last, tau=None):
    return dict(
        label=label,
        seed=seed,
        last=last,
        best=last + 1,
        seconds=60.0,
        processor_seconds=100.0,
        agreement={} if tau is None else dict(tau=tau),
        gradient_shares={},
        attempts=[dict(commit='abc')],
    )


def test_statistics_by_hand():
    # Squares of -1, 0, 1 add up to 2; over n - 1 = 2 that is 1.
    assert spread([4, 5, 6]) == dict(mean=5, std=1, values=[4, 5, 6])
    assert spread([4])['std'] is None and spread([])['mean'] is None
    # Differences 1, 3, 2: mean 2, deviation 1, over sqrt(3).
    pairs = paired({0: 11, 1: 23, 2: 32, 9: 0}, {0: 10, 1: 20, 2: 30, 8: 0})
    assert pairs['by_seed'] == {0: 1, 1: 3, 2: 2} and pairs['mean'] == 2
    assert pairs['standard_error'] == pytest.approx(1 / math.sqrt(3))
    assert pairs['half_width'] == pytest.approx(4.302653 / math.sqrt(3))
    assert paired({0: 1}, {1: 1}) is None
    assert paired({0: 3}, {0: 1})['standard_error'] is None


def test_table_by_hand():
    results = [
        result('kd', 0, 50.0, 0.5),
        result('kd', 1, 52.0, 0.6),
        result('rk', 1, 55.0, 0.7),
        result('rk', 0, 51.0, 0.7),
    ]
    rows = summarize(['kd', 'rk', 'none'], results, 'kd')
    lines = report.table(rows, 'kd', 1).splitlines()
    cells = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in lines
    ]
    assert ['|'.join(line) for line in cells[2:]] == [
        'kd|2|51.00 ± 1.41|52.00 ± 1.41|-||0.550 ± 0.071|-|1:00',
        # 51 - 50 = 1 and 55 - 52 = 3: mean 2, sqrt(2) / sqrt(2) = 1.
        'rk|2|53.00 ± 2.83|54.00 ± 2.83|+2.00 ± 1.00|+1.00 +3.00|'
        '0.700 ± 0.000|-|1:00',
        'none|0|-|-|-||-|-|-',
    ]
    assert len({len(line) for line in lines}) == 1


def test_average_precision_is_in_percent_whosever_it_is(tmp_path):
    results = [
        dict(result('kd', 0, 0.4), best=0.5),
        dict(result('rk', 0, 0.45), best=0.5),
    ]
    facts = dict(
        baseline='kd',
        metric='pascal_voc/mAP',
        seeds=[0],
        missing=[],
        failures=[],
        command='',
    )
    rows = summarize(['kd', 'rk'], results, 'kd')
    text = report.write_report(tmp_path, rows, results, facts)
    assert '40.00' in text and '+5.00' in text and '0.4' not in text
    assert 'pascal_voc/mAP in percent' in text


@pytest.mark.parametrize(
    ('unit', 'words'),
    [
        ('images', '800 images of the validation data against'),
        ('boxes', '800 ground-truth boxes of the validation data against'),
        ('cells', 'the 800 cells of the validation data that the teacher is'),
        ('queries', 'the 800 queries on the validation data that the teacher'),
        ('proposals', 'the 800 proposals on the validation data that the'),
        (None, 'scores on the validation data against'),
    ],
)
def test_it_says_what_was_compared(tmp_path, unit, words):
    seen = dict(tau=0.5, top1_agreement=0.5, kl=0.1)
    results = [
        dict(
            result('kd', 0, 0.4),
            best=0.4,
            agreement={**seen, unit: 800} if unit else {},
        )
    ]
    facts = dict(
        baseline='kd',
        metric='coco/bbox_mAP',
        seeds=[0],
        missing=[],
        failures=[],
        command='',
    )
    rows = summarize(['kd'], results, 'kd')
    text = report.write_report(tmp_path, rows, results, facts)
    assert words in text


def test_different_commits_are_told():
    one, other = result('kd', 0, 1.0), result('kd', 1, 1.0)
    assert 'Commit: abc.' in report.origin([one, other])
    other['attempts'] = [dict(commit='def')]
    assert 'Commit: NOT THE SAME FOR ALL: abc / def.' in report.origin(
        [one, other]
    )


def test_differences_name_dotted_keys():
    text = differences(dict(a=dict(b=[1, 2])), dict(a=dict(b=[1, 3]), c=0))
    assert text == "  a.b.1: 2 -> 3\n  c: '(not set)' -> 0"


def test_remaining_time_follows_the_measured_pace(folder):
    found, _ = methods.parse_methods(['kd_tiny.py', 'ce_tiny.py'])
    cells = make_cells(found, [0], folder / 'out', {})
    progress = Progress(cells)
    assert progress.seconds_left() is None
    # kd: 2 of 3 epochs left at 4 s; ce is not known and takes the mean.
    progress.advance(cells[0], 1.0, 4.0)
    assert progress.seconds_left() == 2 * 4 + 3 * 4
    progress.advance(cells[1], 1.0, 2.0)
    assert progress.seconds_left() == 2 * 4 + 2 * 2
    progress.jobs = 2
    assert progress.seconds_left() == 2 * 4
    progress.close_cell(cells[0], '')
    progress.close_cell(cells[1], '')
    assert progress.seconds_left() == 0


def test_band_is_mean_and_range_where_all_runs_are():
    assert band([[(1, 2.0), (2, 4.0)], [(1, 4.0), (3, 9.0)], []]) == [
        (1, 3.0, 2.0, 4.0)
    ]
    assert band([]) == []


def test_picture_takes_many_methods_and_empty_panels(tmp_path):
    runs = {
        f'method{n}': [{'a': [(1, n), (2, n + k)]} for k in range(3)]
        for n in range(9)
    }
    draw_curves(
        tmp_path / 'c.png', runs, [Curve('A', ('a',)), Curve('No', ('b',))]
    )
    with Image.open(tmp_path / 'c.png') as image:
        assert image.width > 800 and len(image.convert('L').getcolors()) > 10


REAL = """
default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmrkkd.ImageFolder',
        data_root='images',
        split='train',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
val_dataloader = dict(
    train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False)
)
val_evaluator = dict(type='Accuracy')
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
log_processor = dict(window_size=1)
student = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrkkd.CIFARResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=3,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
"""


@pytest.mark.slow
def test_real_trainings_are_compared_with_the_real_teacher(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ('cat', 'dog', 'fish'):
        Path('images/train', name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            image = Image.fromarray(pixels)
            image.save(f'images/train/{name}/{number}.png')
    Path('ce_tiny.py').write_text(REAL + 'model = student\n')
    Path('kd_tiny.py').write_text(
        REAL + "model = dict(type='mmrkkd.KDClassifier', student=student,\n"
        "    teacher=dict(config='ce_tiny.py',\n"
        "                 checkpoint='teacher/ce/seed0/epoch_2.pth'),\n"
        "    losses=dict(type='mmrkkd.RankKDLoss'), gradient_interval=1)\n"
    )
    arguments = ['--seeds', '0', '--metric', 'accuracy/top1', '--threads', '1']
    assert ablation.main(['ce_tiny.py', *arguments, '--work-dir=teacher']) == 0
    both = ['ce_tiny.py', 'kd_tiny.py', *arguments, '--work-dir=out']
    assert ablation.main(both) == 0
    alone, distilled = content()['results']
    # The student alone of the same seed is the teacher over again.
    assert alone['agreement']['tau'] == pytest.approx(1)
    assert alone['agreement']['images'] == 12
    assert distilled['epochs'] == 2
    assert -1 <= distilled['agreement']['tau'] <= 1
    assert set(distilled['gradient_shares']) == {'kd', 'rank', 'task'}
    assert sum(distilled['gradient_shares'].values()) == pytest.approx(1)
    log = records.log_of(Path('out/kd/seed0'))
    assert [epoch for epoch, _ in means_of(log, 'kd/tau')] == [1, 2]
