"""The soak's measuring, judging and drawing; the hour itself is by hand."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from mmrkkd.checkpoint.atomic import write_json
from mmrkkd.cli import add_config_options, read_config
from mmrkkd.datasets import Recipe

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

import soak  # noqa: E402
from experiments import ExperimentError, growth, watching  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

HOLDS = """
import sys, time
files = [open(sys.executable, 'rb') for _ in range(7)]
block = bytearray(64 * 2**20)
block[::4096] = b'x' * len(block[::4096])
print('ready', flush=True)
time.sleep(60)
"""


def an_hour(rise=0.0):
    """Noise around 100, which goes up by ``rise`` in an hour."""
    random = np.random.default_rng(0)
    seconds = np.arange(0, 3600, 5)
    values = 100 + rise * seconds / 3600 + random.normal(0, 1, len(seconds))
    return list(zip(seconds.tolist(), values.tolist(), strict=True))


@pytest.mark.parametrize(
    'name, rise, grew',
    [
        ('memory_mib', 0, False),
        ('memory_mib', 6, True),
        ('memory_mib', -6, False),
        ('step_cpu_ms', 4, False),
        ('step_cpu_ms', 12, True),
        # Other work on the machine slows a step down: told, not judged.
        ('step_ms', 50, False),
    ],
)
def test_growth_is_found_and_noise_is_not(name, rise, grew):
    found = growth.judge({name: an_hour(rise)})[name]
    assert found['grew'] is grew
    # Medians of quarters after a tenth: those of 0.2125 and 0.8875 hours.
    expected = 0.675 * rise / (1 + 0.002125 * rise)
    assert found['percent'] == pytest.approx(expected, abs=0.5)


def test_one_more_file_is_growth():
    files = [(second, 40 + (second > 3000)) for second in range(0, 3600, 5)]
    found = growth.judge({'open_files': files})['open_files']
    assert (found['first'], found['last']) == (40, 41)
    assert found['grew']


def test_the_first_tenth_does_not_count():
    points = [(second, 5.0) for second in range(0, 1000, 5)]
    points[:20] = [(second, 900.0) for second in range(0, 100, 5)]
    assert growth.quarters(points) == (5.0, 5.0)


@pytest.mark.parametrize('count', [0, 8])
def test_a_watch_too_short_is_refused(count):
    with pytest.raises(ValueError, match='watch for longer'):
        growth.quarters([(float(i), 1.0) for i in range(count)])


def test_memory_files_and_threads_of_a_process_and_its_children():
    with subprocess.Popen(
        [sys.executable, '-c', HOLDS], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == 'ready\n'
            alone = watching.look(psutil.Process(child.pid), time.time())
            both = watching.look(psutil.Process(os.getpid()), time.time())
        finally:
            child.kill()
    assert 64 < alone.memory_mib <= alone.resident_mib
    # Three standard streams and the seven that it opened.
    assert alone.open_files == 10
    assert alone.threads == 1
    assert both.open_files > alone.open_files
    assert both.memory_mib > alone.memory_mib


def test_a_process_that_has_ended_is_no_sample():
    child = subprocess.Popen([sys.executable, '-c', ''])
    process = psutil.Process(child.pid)
    child.wait()
    with pytest.raises(psutil.NoSuchProcess):
        watching.look(process, time.time())


@pytest.fixture
def series():
    """A watch of 1000 s: 0.5 s a step, of which 0.4 s are processor time."""
    samples = [
        watching.Sample(
            seconds=float(second),
            memory_mib=500.0,
            resident_mib=700.0,
            open_files=30,
            threads=12,
            cpu_seconds=7 + 0.8 * second,
        )
        for second in range(0, 1001, 5)
    ]
    steps = [(float(second), 2 * second) for second in range(10, 1000, 10)]
    logged = [(step, 0.5) for _, step in steps]
    return watching.series_of(samples, steps, logged)


def test_time_of_a_step_is_taken_from_log_and_processor(series):
    assert {value for _, value in series['step_ms']} == {500.0}
    cost = [value for _, value in series['step_cpu_ms']]
    assert len(cost) > 15
    assert cost == pytest.approx([400.0] * len(cost))


def test_table_numbers_and_picture(series, tmp_path):
    verdict = growth.judge(series)
    assert not any(found['grew'] for found in verdict.values())
    lines = growth.table(verdict).splitlines()
    assert len(lines) == 2 + len(series)
    cells = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in lines
    ]
    assert ['Open files', '30.0', '30.0', '+0.00 %', '0 %'] in cells
    write_json(tmp_path / 'soak.json', dict(verdict=verdict))
    kept = json.loads((tmp_path / 'soak.json').read_text())
    assert kept['verdict'] == verdict
    growth.draw_soak(tmp_path / 'soak.png', series, verdict)
    with Image.open(tmp_path / 'soak.png') as picture:
        assert np.asarray(picture.convert('L')).std() > 10


@pytest.mark.parametrize('failures', [[], ['teacher: training ended']])
def test_the_demo_s_teacher_is_trained(tmp_path, monkeypatch, failures):
    cells, cleared = [], []

    def run_cells(some, progress, metric):
        assert metric == 'coco/bbox_mAP'
        cells.extend(some)
        return failures

    monkeypatch.setattr(soak, 'run_cells', run_cells)
    monkeypatch.setattr(soak, 'clear_folder', cleared.append)
    monkeypatch.setattr(soak, 'result_of', lambda _: dict(checkpoint='t.pth'))
    arguments = tmp_path, tmp_path / 'data', Recipe(seed=4)
    if failures:
        with pytest.raises(ExperimentError, match='training ended'):
            soak.train_teacher(*arguments)
    else:
        assert soak.train_teacher(*arguments) == 't.pth'
    (cell,) = cells
    assert cleared == cells
    assert cell.folder == tmp_path / 'teacher' and cell.seed == 4
    assert cell.method.config.name == 'faster-rcnn_r50_demo.py'
    assert cell.config.data_root == f'{tmp_path}/data/'


def test_the_distillation_has_no_end(tmp_path):
    args = soak.parse_args(['--interval', '10'])
    script, *words = map(
        str, soak.soak_command(tmp_path, tmp_path / 'data', 't.pth', args)
    )
    assert Path(script).is_file()
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    config = read_config(parser.parse_args(words))
    assert config.model.teacher.checkpoint == 't.pth'
    assert config.train_cfg.max_iters == soak.ENDLESS
    assert config.train_cfg.val_interval == 20
    assert config.default_hooks.checkpoint.interval == 10
    assert config.param_scheduler == []
    # The moved images of both, data_root alone being given.
    for loader in (config.train_dataloader, config.val_dataloader):
        assert str(loader.dataset.data_root).startswith(f'{tmp_path}/data')
