"""The demo's report, pictures, progress and memory of finished stages."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrkkd.report import (
    Curve,
    Detections,
    draw_curves,
    draw_detections,
    judge,
    read_scalars,
)

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

from demo import last_score  # noqa: E402
from demo_parts import report, stages  # noqa: E402
from demo_parts.progress import Progress  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

ROWS = [
    dict(title='Teacher', ap=0.412, ap50=0.7, seconds=100.4),
    dict(
        title='Student',
        ap=0.3,
        ap50=0.5,
        tau=0.25,
        top1_agreement=0.5,
        seconds=50,
    ),
]
STAGE = stages.Stage('student', 'Student', 'faster-rcnn_mv2_demo.py', 1)


def facts(**changes):
    return dict(
        dict(
            seed=0,
            quick=False,
            recipe=dict(val=24),
            seconds=1.0,
            commands=['python tools/train.py x.py'],
            shortcomings=[],
            surroundings=report.surroundings(ROOT),
        ),
        **changes,
    )


def test_a_model_that_finds_nothing_scores_0():
    scores = {'coco/bbox_mAP': [(3, 0.1), (6, 0.2)]}
    assert last_score(scores, 'coco/bbox_mAP') == 0.2
    assert last_score({}, 'coco/bbox_mAP') == 0.0


def test_table_gives_percent_and_dashes():
    lines = report.table(ROWS).splitlines()
    cells = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in lines
    ]
    assert cells[2] == ['Teacher', '41.2', '70.0', '-', '-', '100']
    assert cells[3] == ['Student', '30.0', '50.0', '0.250', '0.500', '50']
    assert len({len(line) for line in lines}) == 1


def test_report_is_written_as_markdown_and_json(tmp_path):
    text = report.write_report(tmp_path, ROWS, facts())
    assert (tmp_path / 'report.md').read_text() == text
    assert report.table(ROWS) in text
    assert 'proves nothing about the method' in text
    content = json.loads((tmp_path / 'report.json').read_text())
    assert content['rows'] == ROWS
    assert content['surroundings']['versions']['torch']
    assert content['surroundings']['hardware']['cores'] >= 1


def test_weak_results_are_told(tmp_path):
    rows = [dict(ROWS[0], ap50=0.49), dict(ROWS[1], ap50=float('nan'))]
    problems = report.shortcomings(rows)
    assert len(problems) == 2 and not report.shortcomings(ROWS)
    assert 'the teacher is not trained: AP50 0.490' in problems[0]
    text = report.write_report(tmp_path, rows, facts(shortcomings=problems))
    assert f'NOT GOOD ENOUGH: {problems[0]}.' in text


def test_quick_run_says_that_it_proves_nothing(tmp_path):
    text = report.write_report(tmp_path, ROWS, facts(quick=True))
    assert 'the quality is not checked' in text


def test_fingerprint_follows_content():
    options = {'train_cfg.max_iters': 6}
    key = stages.fingerprint(STAGE, options, dict(data=1))
    assert key == stages.fingerprint(STAGE, dict(options), dict(data=1))
    assert key != stages.fingerprint(STAGE, options, dict(data=2))
    assert key != stages.fingerprint(
        STAGE, {'train_cfg.max_iters': 7}, dict(data=1)
    )


def test_stage_is_finished_only_with_key_and_checkpoint(tmp_path):
    checkpoint = tmp_path / 'a.pth'
    stages.write_record(tmp_path, dict(fingerprint='k'))
    assert not stages.finished(tmp_path, 'k')
    stages.write_record(
        tmp_path, dict(fingerprint='k', seconds=1, checkpoint=str(checkpoint))
    )
    assert not stages.finished(tmp_path, 'k')
    checkpoint.touch()
    assert stages.finished(tmp_path, 'k')
    assert not stages.finished(tmp_path, 'other')


def test_foreign_work_folder_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').write_text('precious')
    with pytest.raises(stages.StageError, match='not written by the demo'):
        stages.prepare_folder(tmp_path, 'k')
    assert (tmp_path / 'thesis.tex').read_text() == 'precious'


def test_failing_command_ends_with_its_log(tmp_path):
    command = [sys.executable, '-c', 'print("the cause"); raise SystemExit(3)']
    with pytest.raises(stages.StageError, match=r'code 3[\s\S]*the cause'):
        stages.run_logged(command, tmp_path / 'log')


def test_training_lines_become_progress(tmp_path):
    line = (
        'Iter(train) [ 30/300]  lr: 1.0e-03  grad_norm: 4.5  '
        'loss: 1.8911  loss_cls: 0.9446  kd/tau: 0.2500'
    )
    seen = []
    stages.run_logged(
        [sys.executable, '-c', f'print({line!r})'],
        tmp_path / 'log',
        lambda *state: seen.append(state),
    )
    assert seen == [(0.1, 'loss 1.891 kd/tau 0.250')]


def test_progress_without_a_terminal_prints_lines():
    stream = io.StringIO()
    progress = Progress([10, 30], stream)
    progress.skip('teacher', 'finished earlier')
    progress.begin('student')
    progress.last_line = 0
    progress.update(0.5, 'loss 1.0')
    progress.close()
    text = stream.getvalue()
    assert '[1/2] teacher: finished earlier' in text
    assert '[2/2] student' in text and '50% of this stage' in text


def test_scalars_are_read_up_to_a_cut_line(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text(
        '{"loss": 2.0, "step": 10}\n{"loss": 1.5, "step": 20}\n'
        '{"coco/bbox_mAP": 0.3, "step": 20}\n{"loss": 1.'
    )
    series = read_scalars(path)
    assert series['loss'] == [(10, 2.0), (20, 1.5)]
    assert series['coco/bbox_mAP'] == [(20, 0.3)]


def test_curves_picture_is_written(tmp_path):
    steps = [(10, 1.0), (20, 0.5)]
    draw_curves(
        tmp_path / 'c.png',
        dict(a=dict(loss=steps), b={'loss': steps, 'kd/tau': steps}),
        [
            Curve('Loss', ('loss',)),
            Curve('Tau', ('kd/tau',)),
            Curve('Nobody has it', ('x', 'y')),
        ],
    )
    with Image.open(tmp_path / 'c.png') as image:
        assert image.width > 800 and len(image.convert('L').getcolors()) > 10


def boxes(*rows, scores=None):
    table = np.array(rows, float).reshape(-1, 5)
    return Detections(
        table[:, :4],
        table[:, 4].astype(int),
        None if scores is None else np.array(scores),
    )


def test_judgement_tells_class_place_and_repetition():
    truth = boxes([0, 0, 10, 10, 1], [20, 20, 30, 30, 2])
    found = boxes(
        [0, 0, 10, 10, 1],
        [0, 0, 10, 10, 1],
        [20, 20, 30, 30, 0],
        [50, 50, 60, 60, 1],
        scores=[0.9, 0.8, 0.7, 0.6],
    )
    assert judge(found, truth) == [
        'correct',
        'no_object',
        'wrong_class',
        'no_object',
    ]


def test_only_the_strongest_at_a_place_is_shown():
    found = boxes(
        [0, 0, 10, 10, 1],
        [0, 0, 10, 9, 2],
        [20, 20, 30, 30, 1],
        [40, 40, 50, 50, 0],
        scores=[0.5, 0.8, 0.2, 0.4],
    )
    shown = found.strongest(0.3)
    assert shown.labels.tolist() == [2, 0]
    assert shown.scores.tolist() == [0.8, 0.4]
    assert len(boxes(scores=[]).strongest(0.3).boxes) == 0


def test_detections_picture_is_written(tmp_path):
    image = np.full((64, 64, 3), 128, np.uint8)
    truth = boxes([5, 5, 30, 30, 0])
    found = boxes([5, 5, 30, 30, 0], [40, 40, 60, 60, 1], scores=[0.9, 0.1])
    draw_detections(
        tmp_path / 'd.png',
        [image, image],
        [truth, truth],
        dict(teacher=[found, found], student=[boxes(scores=[]), found]),
        ['red plain disc', 'blue striped cross'],
    )
    with Image.open(tmp_path / 'd.png') as picture:
        assert picture.width > picture.height
