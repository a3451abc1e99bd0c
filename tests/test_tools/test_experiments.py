"""Records, processes, progress and tables of trainings."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrkkd.evaluation.comparison import comparison_config
from mmrkkd.report import (
    log_files,
    markdown_table,
    means_of,
    plain_table,
    points_of,
    read_log,
)
from mmrkkd.report.measurements import measurements, scores

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

from experiments import ExperimentError, processes, records  # noqa: E402
from experiments.cells import Cell  # noqa: E402
from experiments.jobs import Job  # noqa: E402
from experiments.methods import Method  # noqa: E402
from experiments.progress import Progress  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

AP = 'coco/bbox_mAP'


def a_cell(folder, label='kd', iterations=10, **options):
    config = Config(
        dict(model=dict(type='A'), train_cfg=dict(max_iters=iterations))
    )
    return Cell(Method(label, Path('x.py'), **options), 0, folder, config)


def train(cell, trained=True, checkpoint='iter_10.pth'):
    """What a training leaves behind."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    state = dict(key=cell.key, settings=cell.settings, trained=trained)
    (cell.folder / 'cell.json').write_text(json.dumps(state))
    path = cell.folder / checkpoint
    path.touch()
    (cell.folder / 'last_checkpoint').write_text(str(path))


def write_log(folder, *entries, attempt='1'):
    path = folder / attempt / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, entries)))


def step(number, **values):
    return dict(step=number, iter=number, **values)


def test_what_stands_finished_is_kept(tmp_path):
    cell = a_cell(tmp_path / 'kd')
    records.clear_folder(cell)
    train(cell)
    records.clear_folder(cell)
    assert (cell.folder / 'iter_10.pth').is_file()


@pytest.mark.parametrize('reason', ['fresh', 'config', 'unfinished', 'lost'])
def test_what_does_not_is_trained_anew(tmp_path, reason):
    cell = a_cell(tmp_path / 'kd')
    train(cell, trained=reason != 'unfinished')
    if reason == 'config':
        cell = a_cell(tmp_path / 'kd', iterations=20)
    if reason == 'lost':
        (cell.folder / 'iter_10.pth').unlink()
    records.clear_folder(cell, fresh=reason == 'fresh')
    assert [path.name for path in cell.folder.iterdir()] == ['lock']


@pytest.mark.parametrize('fresh', [False, True])
def test_what_another_process_trains_is_not_cleared(tmp_path, fresh):
    cell = a_cell(tmp_path / 'kd')
    train(cell, trained=False)
    with (
        records.locked(cell),
        pytest.raises(ExperimentError, match='another process; wait for it'),
    ):
        records.clear_folder(cell, fresh)
    assert (cell.folder / 'iter_10.pth').is_file()
    records.clear_folder(cell, fresh)
    assert not (cell.folder / 'iter_10.pth').exists()


def test_interrupted_clearing_is_done_again(tmp_path, monkeypatch):
    cell = a_cell(tmp_path / 'kd')
    train(cell)
    (cell.folder / 'vis_data').mkdir()

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(records.shutil, 'rmtree', killed)
    with pytest.raises(KeyboardInterrupt):
        records.clear_folder(cell, fresh=True)
    monkeypatch.undo()
    records.clear_folder(cell)
    assert [path.name for path in cell.folder.iterdir()] == ['lock']


def test_foreign_work_folder_is_not_emptied(tmp_path):
    (tmp_path / 'thesis.tex').write_text('precious')
    for fresh in (False, True):
        with pytest.raises(ExperimentError, match='not written by this tool'):
            records.clear_folder(a_cell(tmp_path), fresh)
    assert (tmp_path / 'thesis.tex').read_text() == 'precious'


def test_a_cell_killed_before_its_first_file_is_ours(tmp_path):
    (tmp_path / 'lock').touch()
    records.check_folder(a_cell(tmp_path))


def test_a_cell_that_fails_before_its_training_is_ours(tmp_path, monkeypatch):
    cell = a_cell(tmp_path / 'kd')

    def killed(config, path):
        Path(path).write_text('half a config')
        raise KeyboardInterrupt

    monkeypatch.setattr(Config, 'dump', killed)
    with pytest.raises(KeyboardInterrupt):
        Job(cell, None, 'accuracy/top1', threads=1, surroundings={})
    assert (cell.folder / 'cell_config.py').is_file()
    records.check_folder(cell)


def test_a_validation_that_finds_nothing_scores_0(tmp_path):
    write_log(tmp_path, step(5, loss=1.0), {AP: 0.25, 'step': 5}, {'step': 10})
    assert scores(records.log_of(tmp_path), AP) == [(5, 0.25), (10, 0)]
    measured = measurements(tmp_path, AP)
    assert (measured['last'], measured['best']) == (0, 0.25)
    assert (measured['best_epoch'], measured['epochs']) == (5, 10)
    # Left out, it would flatter the mean over the seeds.
    assert measured['scores'] == {AP: 0, 'coco/bbox_mAP_50': 0}


def test_a_model_that_never_finds_anything_scores_0(tmp_path):
    write_log(tmp_path, step(10), {'step': 10, 'time': 1.0})
    assert measurements(tmp_path, AP)['last'] == 0


@pytest.mark.parametrize('logged', ['accuracy/top1', 'coco/bbox_mAP_50'])
def test_a_metric_that_is_not_logged_is_no_0(tmp_path, logged):
    write_log(tmp_path, step(10), {'step': 10, logged: 0.5})
    with pytest.raises(ValueError, match=f'logged were .*{logged}'):
        measurements(tmp_path, AP)


def test_all_scores_of_the_last_validation_are_kept(tmp_path):
    write_log(
        tmp_path,
        {'step': 1, AP: 0.5, 'coco/cat_precision': 0.1},
        {
            'step': 2,
            AP: 0.25,
            'coco/cat_precision': 0.5,
            'coco/dog_precision': float('nan'),
            'time': 3.0,
        },
    )
    assert measurements(tmp_path, AP)['scores'] == {
        AP: 0.25,
        'coco/cat_precision': 0.5,
        'coco/dog_precision': None,
    }


def test_a_run_killed_before_its_last_validation_is_known(tmp_path):
    write_log(tmp_path, step(5), {AP: 0.25, 'step': 5}, step(10))
    assert not records.validated(tmp_path)
    # Where MMEngine counts epochs, a validation's step is one.
    write_log(
        tmp_path / 'b', step(50, epoch=1), {AP: 1, 'step': 1}, attempt='x'
    )
    assert records.validated(tmp_path / 'b')
    write_log(tmp_path / 'c', step(50, epoch=1), attempt='x')
    assert not records.validated(tmp_path / 'c')


def test_logs_are_read_up_to_a_cut_line_and_over_attempts(tmp_path):
    write_log(tmp_path, step(10, loss=2.0), step(20, loss=1.0), attempt='1')
    write_log(tmp_path, step(20, loss=1.5), {'step': 20, AP: 0.3}, attempt='2')
    (second := log_files(tmp_path)[1]).write_text(
        second.read_text() + '\n{"loss": 1.'
    )
    log = read_log(log_files(tmp_path))
    assert points_of(log, 'loss') == [(10, 2.0), (20, 1.5)]
    assert points_of(log, AP) == [(20, 0.3)]


def test_means_are_by_epoch():
    log = [step(1, epoch=1, a=1.0), step(2, epoch=1, a=3.0), step(3, epoch=2)]
    assert means_of(log, 'a') == [(1, 2.0)]


def test_failing_script_ends_with_its_log(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text('print("the cause"); raise SystemExit(3)')
    with pytest.raises(ExperimentError, match=r'code 3[\s\S]*the cause'):
        processes.run_to_end([script], tmp_path / 'log')
    script.write_text('import os\nprint("all", os.environ["OMP_NUM_THREADS"])')
    output = processes.run_to_end([script], tmp_path / 'log')
    assert output == f'all {processes.threads_of()}\n'
    assert 'the cause' in (tmp_path / 'log').read_text()


def test_what_is_printed_at_once_is_read(tmp_path, monkeypatch):
    log = tmp_path / 'log'
    log.write_text('of an earlier attempt\n')

    class LateParent(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            while 'at once' not in log.read_text():
                time.sleep(0.01)

    monkeypatch.setattr(processes.subprocess, 'Popen', LateParent)
    script = tmp_path / 'script.py'
    script.write_text('print("at once", flush=True)')
    assert processes.run_to_end([script], log) == 'at once\n'


def test_a_batch_systems_signal_is_an_interruption():
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(KeyboardInterrupt),
        processes.ended_like_interrupted(),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert signal.getsignal(signal.SIGTERM) is before


def test_stopping_ends_what_a_script_started(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'import subprocess, sys\n'
        'child = subprocess.Popen([sys.executable, "-c", '
        '"import time; time.sleep(60)"])\n'
        'print(child.pid)\nchild.wait()\n'
    )
    process = processes.Process([script], tmp_path / 'log', 1)
    deadline, lines = time.time() + 60, []
    while not lines:
        assert time.time() < deadline and process.code is None
        time.sleep(0.02)
        lines = process.poll()
    process.stop()
    assert process.code is not None
    status = Path(f'/proc/{lines[0]}/stat')
    while status.exists() and status.read_text().split()[2] != 'Z':
        assert time.time() < deadline
        time.sleep(0.02)


def test_remaining_time_of_what_was_not_seen_follows_the_costs(tmp_path):
    cells = [
        a_cell(tmp_path, 'teacher', cost=4.0),
        a_cell(tmp_path, 'student', cost=2.0),
    ]
    progress = Progress(cells, stream=io.StringIO())
    assert progress.seconds_left() is None
    # 6 of 10 iterations left at 8 s; a student's takes half of that.
    progress.advance(cells[0], 4.0, 8.0)
    assert progress.seconds_left() == 6 * 8 + 10 * 4


def test_the_start_of_a_run_says_little_of_all_others(tmp_path):
    cells = [a_cell(tmp_path, name) for name in ('first', 'second')]
    progress = Progress(cells, stream=io.StringIO())
    # Better than nothing where nothing else is known.
    progress.advance(cells[0], 0.5, 40.0)
    assert progress.seconds_left() == 9.5 * 40 + 10 * 40
    progress.advance(cells[0], 10.0, 2.0)
    progress.close_cell(cells[0], '')
    progress.advance(cells[1], 0.5, 40.0)
    assert progress.seconds_left() == 9.5 * 2
    progress.advance(cells[1], 1.0, 3.0)
    assert progress.seconds_left() == 9 * 3


def test_progress_without_a_terminal_prints_lines(tmp_path):
    cell = a_cell(tmp_path)
    progress = Progress([cell], stream=io.StringIO())
    progress.advance(cell, 5.0, 2.0)
    progress.last_line = 0
    progress.show(['kd: 5/10 loss 1.0'])
    progress.close_cell(cell, 'kd: done')
    progress.close()
    text = progress.stream.getvalue()
    assert '5.0/10 iterations' in text and 'about 0:10 left' in text
    assert 'kd: 5/10 loss 1.0' in text and '[1/1] kd: done' in text


def test_markdown_table():
    assert markdown_table(['a', 'b'], [['x', '1.25'], ['yz', '-']]) == (
        '| a  |    b |\n| -- | ---: |\n| x  | 1.25 |\n| yz |    - |'
    )
    assert markdown_table(['a', 'b'], [['x', 'text']], texts=2) == (
        '| a  | b    |\n| -- | ---- |\n| x  | text |'
    )


def test_plain_table():
    assert plain_table(['term', 'share'], [['kd', '0.5'], ['r', '1']]) == (
        'term  share\nkd      0.5\nr         1'
    )
    assert plain_table(['a', 'b'], [['x', 'y']], texts=2) == 'a   b\nx   y'


@pytest.mark.parametrize('table', [markdown_table, plain_table])
def test_a_line_with_a_cell_too_many_is_no_table(table):
    with pytest.raises(ValueError):
        table(['a', 'b'], [['1', '2', '3']])


@pytest.mark.usefixtures('mmdet_scope')
def test_a_dense_student_alone_is_compared_too():
    """A softmax's loss would not suit its head."""
    sys.path.insert(0, str(ROOT / 'tests' / 'test_models'))
    from small_dense_heads import dense_config, distilled

    from mmrkkd.registry import MODELS

    teacher = distilled(
        'retinanet',
        dict(type='mmrkkd.BinaryKDLoss'),
        matching=dict(type='grid', locations='top'),
    )
    alone = Config(
        dict(
            model=dense_config('retinanet'),
            val_dataloader={},
            val_evaluator={},
        )
    )
    compared = comparison_config(alone, teacher).model
    assert compared.matching.locations == 'top'
    assert MODELS.build(compared).reader.unit == 'cells'
