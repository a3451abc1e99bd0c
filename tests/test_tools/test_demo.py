"""The demo's cells, report and pictures."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mmrkkd.datasets import Recipe, make_demo_shapes
from mmrkkd.report import Curve, detections, draw_curves, surroundings
from mmrkkd.report.detections import draw_detections
from mmrkkd.report.examples import (
    most_disputed,
    read_found,
    read_truths,
)
from mmrkkd.report.verdicts import Detections, judge

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

import demo  # noqa: E402
import demo_report as report  # noqa: E402
from experiments import ExperimentError  # noqa: E402
from experiments.cells import reference  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

STUDENT_AP50 = {'coco/bbox_mAP_50': dict(mean=0.5, std=0.01)}
ROWS = [
    dict(
        title='Teacher',
        seeds=[0],
        last=dict(mean=0.412),
        scores={'coco/bbox_mAP_50': dict(mean=0.7, std=None)},
        tau=dict(mean=None),
        seconds=dict(mean=100.4),
        difference=None,
        over_images=None,
    ),
    dict(
        title='Student, KL',
        seeds=[0, 1],
        last=dict(mean=0.3),
        scores=STUDENT_AP50,
        tau=dict(mean=0.25),
        seconds=dict(mean=50),
        difference=dict(by_seed={0: 0.01, 1: -0.002}),
        over_images=dict(mean=[0.4, 1], low=[-0.52, 0], high=[1.33, 2]),
    ),
]


def facts(**changes):
    return dict(
        dict(
            seed=0,
            quick=False,
            recipe=dict(val=24),
            seconds=1.0,
            samples=300,
            compared=24,
            commands=['python tools/train.py x.py'],
            shortcomings=[],
            surroundings=surroundings(ROOT),
        ),
        **changes,
    )


def test_table_gives_percent_and_dashes():
    lines = report.table(ROWS).splitlines()
    cells = [
        [cell.strip() for cell in line.split('|')[1:-1]] for line in lines
    ]
    teacher = ['Teacher', '1', '41.2', '70.0', '-', '-', '-', '-', '100']
    assert cells[2] == teacher
    student = ['Student, KL', '2', '30.0', '50.0']
    student += ['+0.4', '-0.5 to +1.3', '+1.0 -0.2', '0.250', '50']
    assert cells[3] == student
    assert len({len(line) for line in lines}) == 1


def test_report_is_written_as_markdown_and_json(tmp_path):
    text = report.write_report(tmp_path, ROWS, facts())
    assert (tmp_path / 'report.md').read_text() == text
    assert report.table(ROWS) in text
    assert '2 seeds cannot say' in text
    content = json.loads((tmp_path / 'report.json').read_text())
    assert content['rows'] == json.loads(json.dumps(ROWS))
    assert content['surroundings']['versions']['torch']
    assert content['surroundings']['hardware']['cores'] >= 1


def test_weak_results_are_told(tmp_path):
    rows = [
        dict(row, scores={'coco/bbox_mAP_50': dict(mean=ap50)})
        for row, ap50 in zip(ROWS, [0.49, float('nan')])
    ]
    problems = report.shortcomings(rows)
    assert len(problems) == 2 and not report.shortcomings(ROWS)
    assert 'the teacher is not trained: AP50 0.490' in problems[0]
    text = report.write_report(tmp_path, rows, facts(shortcomings=problems))
    assert f'NOT GOOD ENOUGH: {problems[0]}.' in text


def test_quick_run_says_that_it_proves_nothing(tmp_path):
    text = report.write_report(tmp_path, ROWS, facts(quick=True))
    assert 'the quality is not checked' in text


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'work'


def cells_of(folder, **changes):
    data = changes.pop('data', folder.parent / 'data')
    return demo.make_cells(folder, data, Recipe(**changes), quick=True)


def test_students_wait_for_the_teachers_checkpoint(folder):
    teacher, alone, *distilled = cells_of(folder)
    assert teacher.epochs == 6 and teacher.folder == folder / 'teacher'
    assert 'teacher' not in alone.config.model
    for cell in distilled:
        checkpoint = cell.config.model.teacher.checkpoint
        assert checkpoint == str(folder / 'teacher' / 'iter_6.pth')
        assert f'model.teacher.checkpoint={checkpoint}' in cell.by_hand
    assert reference([alone, *distilled], 'rkkd') == distilled[1].config.model
    assert alone.by_hand.startswith(
        'python tools/train.py configs/demo/faster-rcnn_mv2_demo.py '
        f'--work-dir {alone.folder} --cfg-options data_root='
    )


def test_every_student_is_trained_with_several_seeds(folder):
    cells = demo.make_cells(folder, folder / 'data', Recipe(seed=5))
    labels = [cell.method.label for cell in cells]
    assert labels == ['teacher'] + 2 * ['student', 'kd', 'rkkd']
    assert [cell.seed for cell in cells] == [5, 5, 5, 5, 6, 6, 6]
    assert len({cell.folder for cell in cells}) == 7
    # The seed is no part of what a run's key says.
    assert cells[1].key == cells[4].key


@pytest.mark.slow
def test_key_follows_content_not_place(folder, monkeypatch):
    keys = [cell.key for cell in cells_of(folder)]
    assert len(set(keys)) == 4
    moved = cells_of(folder / 'deeper', data=folder / 'elsewhere')
    assert [cell.key for cell in moved] == keys
    changed = [cell.key for cell in cells_of(folder, train=60)]
    assert not set(changed) & set(keys)
    # A teacher trained anew is another for those that learn from it.
    (folder / 'teacher').mkdir(parents=True)
    (folder / 'teacher' / 'iter_6.pth').write_text('a teacher')
    trained = [cell.key for cell in cells_of(folder)]
    assert trained[:2] == keys[:2]
    assert not set(trained[2:]) & set(keys)


def test_sources_that_are_hashed_are_there(monkeypatch):
    for folders in (demo.PLAIN_SOURCES, demo.DISTILLING_SOURCES):
        assert len(demo.content_of(folders)) == 64
    # The layers between the data and a step; see test_layering.py.
    assert {'losses', 'distillers', 'ops'} < set(demo.DISTILLING_SOURCES)
    with pytest.raises(ExperimentError, match='mmrkkd/moved holds no sources'):
        demo.content_of(('datasets', 'moved'))


def test_curves_picture_is_written(tmp_path):
    steps = [(10, 1.0), (20, 0.5)]
    draw_curves(
        tmp_path / 'c.png',
        dict(a=[dict(loss=steps)], b=[{'loss': steps, 'kd/tau': steps}]),
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


def test_labels_hold_their_text_on_upright_images_too():
    figure = Figure((3, 3), dpi=100)
    FigureCanvasAgg(figure)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(np.zeros((200, 100, 3), np.uint8))
    detections._draw_labels(
        axis, (200, 100), [([10, 50, 60, 90], 'striped cross', '#ffffff')]
    )
    figure.canvas.draw()
    text = axis.texts[0].get_window_extent()
    label = axis.patches[0].get_window_extent()
    assert label.width >= text.width and label.height >= text.height


def test_examples_are_those_that_models_dispute(tmp_path):
    make_demo_shapes(tmp_path, Recipe(train=24, val=24, size=64))
    truths = read_truths(
        tmp_path / 'annotations' / 'val.json', tmp_path / 'val'
    )
    assert len(truths.names) == 24 and len(truths.files) == 24
    with Image.open(truths.files[3]) as image:
        assert image.size == (64, 64)
    assert max(truth.boxes.max() for truth in truths.objects) <= 64
    assert truths.objects[0].scores is None
    # A detector that finds everything, and one that misses image 7.
    numbers = {index: key for key, (index, _) in truths.classes.items()}
    found = [
        (truths.ids[i], numbers[label], box, 0.9)
        for i, truth in enumerate(truths.objects)
        for box, label in zip(truth.boxes, truth.labels)
    ]
    fewer = [entry for entry in found if entry[0] != truths.ids[7]]
    columns = [read_found(packed(rows), truths) for rows in (found, fewer)]
    np.testing.assert_allclose(
        columns[0][5].boxes, truths.objects[5].boxes, rtol=1e-6
    )
    assert len(columns[1][7].boxes) == 0
    assert most_disputed(truths.objects, columns, 1, 0.3) == [7]
    assert most_disputed(truths.objects, columns, 3, 0.3) == [0, 1, 7]


def packed(rows):
    ids, categories, boxes, scores = zip(*rows)
    boxes = np.array(boxes, np.float32)
    boxes[:, 2:] -= boxes[:, :2]
    return dict(
        image_id=np.array(ids),
        category_id=np.array(categories),
        bbox=boxes,
        score=np.array(scores, np.float32),
    )
