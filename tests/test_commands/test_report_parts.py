"""The parts of a report, on numbers that are counted by hand."""

import base64
import io
import json
import subprocess
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from PIL import Image

from mmrkkd.evaluation.image_scores import ImageScores, Scored
from mmrkkd.report.class_figure import class_figure
from mmrkkd.report.confusions import (
    MISSED,
    confused_objects,
    most_disputed_pairs,
    swapped_pairs,
)
from mmrkkd.report.contents import scored_contents
from mmrkkd.report.curves import COLOURS
from mmrkkd.report.differences import difference_sentence
from mmrkkd.report.gallery import (
    classified_entry,
    detected_entry,
    disagreement,
    thumbnail,
)
from mmrkkd.report.orders import agreements, answers
from mmrkkd.report.panels import thinned, title_of
from mmrkkd.report.runs import firsts
from mmrkkd.report.selection import class_scores_and_rows
from mmrkkd.report.surroundings import commit, output_of
from mmrkkd.report.tables import html_table
from mmrkkd.report.verdicts import Detections, met_objects

NAMES = ['cat', 'dog', 'fish']
# Three boxes far apart.
BOXES = np.array(
    [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32
)
TRUTH = Detections(BOXES, np.array([0, 1, 2]))
# A cat that is one, a dog called a fish, a box where nothing is.
FOUND = Detections(
    np.array([*BOXES[:2], [60, 0, 70, 10]], np.float32),
    np.array([0, 2, 0]),
    np.array([0.9, 0.6, 0.4]),
)
PERFECT = Detections(BOXES, TRUTH.labels, np.array([0.9, 0.8, 0.7]))


def test_a_detection_takes_the_object_under_it():
    assert met_objects(FOUND, TRUTH) == [0, 1, -1]
    assert met_objects(FOUND, Detections(BOXES[:0], TRUTH.labels[:0])) == [
        -1,
        -1,
        -1,
    ]


def test_objects_are_taken_for_classes_or_missed():
    counts = confused_objects([TRUTH], [FOUND], NAMES, 0.3)
    assert counts == {
        ('cat', 'cat'): 1,
        ('dog', 'fish'): 1,
        ('fish', MISSED): 1,
    }
    # Above 0.7 the dog is missed as well.
    assert confused_objects([TRUTH], [FOUND], NAMES, 0.7)['dog', MISSED] == 1


def test_pairs_on_which_models_differ_stand_first():
    counts = dict(
        one=Counter({('a', 'b'): 5, ('a', 'c'): 9, ('a', 'a'): 50}),
        two=Counter({('a', 'b'): 1, ('a', 'c'): 8, ('a', MISSED): 70}),
    )
    assert most_disputed_pairs(counts, 5) == [('a', 'b'), ('a', 'c')]
    assert most_disputed_pairs(counts, 1) == [('a', 'b')]


def test_swapped_pairs_are_those_of_the_teacher_s_order():
    teacher, student = np.array([3.0, 2.0, 1.0]), np.array([1.0, 3.0, 2.0])
    swapped, seen = swapped_pairs([(student, teacher)], NAMES)
    assert seen == {('cat', 'dog'): 1, ('cat', 'fish'): 1, ('dog', 'fish'): 1}
    assert swapped['cat', 'dog'] == swapped['cat', 'fish'] == 1
    assert swapped['dog', 'fish'] == 0
    # Where the teacher has no order there is none to follow.
    assert not swapped_pairs([(student, np.ones(3))], NAMES)[1]


def test_an_entry_s_boxes_know_their_objects():
    entry = detected_entry('x', 'x.png', TRUTH, dict(a=FOUND, b=PERFECT))
    assert entry.objects[1] == [20, 0, 30, 10, 1]
    assert [row[4:] for row in entry.found['a']] == [
        [0, 0.9, 0],
        [2, 0.6, 1],
        [0, 0.4, -1],
    ]


def test_models_disagree_on_what_one_alone_gets_right():
    entry = detected_entry('x', 'x.png', TRUTH, dict(a=FOUND, b=PERFECT))
    # The dog and the fish; above 0.75 the fish is nobody's.
    assert disagreement(entry, 0.3) == 2
    assert disagreement(entry, 0.75) == 1
    assert disagreement(entry, 0.95) == 0


@pytest.mark.parametrize(
    ('shape', 'size'), [((600, 300, 3), (160, 320)), ((20, 40, 3), (40, 20))]
)
def test_thumbnails_are_small_and_know_the_whole_size(shape, size):
    uri, width, height = thumbnail(np.zeros(shape, np.uint8))
    assert (width, height) == (shape[1], shape[0])
    content = base64.b64decode(uri.partition(',')[2])
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == size


def test_thumbnails_are_turned_as_the_models_see_them(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40] = 255
    # Orientation 6: turned clockwise, so that the left half is above.
    orientation = Image.Exif()
    orientation[0x0112] = 6
    path = tmp_path / 'photo.jpg'
    Image.fromarray(pixels).save(path, exif=orientation)
    uri, width, height = thumbnail(path)
    assert (width, height) == (40, 80) == mmcv.imread(path).shape[1::-1]
    content = base64.b64decode(uri.partition(',')[2])
    with Image.open(io.BytesIO(content)) as image:
        shown = np.array(image)
    assert shown[:35].min() > 200 and shown[45:].max() < 50


def test_what_is_no_number_is_null_on_the_page():
    scores = dict(fine=np.array([0.25, 0.75]), lost=np.array([np.nan] * 2))
    entry = classified_entry('x', 'x.png', 1, scores)
    assert entry.found == dict(fine=[[1, 0.75, 0]], lost=[[0, None, 0]])
    assert disagreement(entry, 0) == 1
    boxes = replace(PERFECT, scores=np.array([0.9, np.nan, 0.7]))
    entry = detected_entry('x', 'x.png', TRUTH, dict(a=boxes))
    # The dog's score is above no threshold.
    assert [row[4:] for row in entry.found['a']] == [[0, 0.9, 0], [2, 0.7, 2]]
    boxes = replace(PERFECT, boxes=np.full((3, 4), np.nan, np.float32))
    entry = detected_entry('x', 'x.png', TRUTH, dict(a=boxes))
    assert {value for row in entry.found['a'] for value in row[:4]} == {None}
    json.dumps(entry.found, allow_nan=False)


def test_a_student_without_numbers_swaps_every_pair():
    teacher = np.array([3.0, 2.0, 1.0])
    swapped, seen = swapped_pairs([(np.full(3, np.nan), teacher)], NAMES)
    assert swapped == seen and seen.total() == 3


def test_curves_are_thinned_by_means():
    points = [(step, 2.0 * step) for step in range(1, 11)]
    assert thinned(points, 5) == [
        (1.5, 3),
        (3.5, 7),
        (5.5, 11),
        (7.5, 15),
        (9.5, 19),
    ]
    assert thinned(points, 10) == points
    assert thinned([], 5) == []


def test_the_chart_of_classes_has_a_mark_for_each_score():
    plotted = dict(
        names=['cat', 'dog'],
        unit='AP, %',
        values=dict(one=[10.0, None], two=[30.0, 40.0]),
    )
    figure = class_figure(plotted, dict(teacher=0, one=1, two=2))
    (axis,) = figure.axes
    one, two = axis.lines
    np.testing.assert_array_equal(one.get_xdata(), [10, np.nan])
    np.testing.assert_array_equal(two.get_xdata(), [30, 40])
    assert [line.get_color() for line in (one, two)] == list(COLOURS[1:3])
    # The first class stands at the top, as on the page, and 0 at the left.
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert axis.get_xlim()[0] == 0
    assert [t.get_text() for t in axis.get_yticklabels()] == ['cat', 'dog']
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ['one', 'two'] and axis.get_xlabel() == 'AP, %'


def test_log_keys_have_plain_titles():
    assert title_of('kd/tau') == 'Kendall tau to the teacher'
    assert title_of('coco/bbox_mAP_50') == 'AP 50'
    assert title_of('loss_kd') == 'loss_kd'


def row(mean, half_width, seeds, images=None):
    """What the summary knows of a method."""
    return dict(
        label='new',
        difference=dict(
            mean=mean,
            half_width=half_width,
            by_seed=dict.fromkeys(range(seeds), mean),
        ),
        over_images=images
        and dict(low=[images[0]], high=[images[1]], images=50),
    )


@pytest.mark.parametrize(
    ('found', 'meaning'),
    [
        (row(0.01, None, 1), 'one run each, so nothing can be said'),
        (row(0.01, 0.02, 3), 'an interval holds 0, so no difference'),
        (row(0.01, 0.005, 3), 'shown by these 3 seeds'),
        (row(0.01, 0.005, 3, (-1, 3)), 'an interval holds 0'),
        (row(-0.01, 0.005, 3, (-3, -1)), 'shown by these 3 seeds'),
        (row(0.01, None, 1, (0.5, 3)), 'one seed cannot say'),
        (dict(label='new', difference=None), 'no seed is common'),
    ],
)
def test_a_difference_is_not_called_shown_too_early(found, meaning):
    sentence = difference_sentence(found, 'old', 'coco/bbox_mAP')
    assert sentence.startswith('new minus old: ') and meaning in sentence
    if found['difference']:
        assert f'{100 * found["difference"]["mean"]:+.2f} AP' in sentence


@pytest.mark.parametrize(
    ('metric', 'mean', 'said'),
    [
        ('accuracy/top1', 2.5, '+2.50 % accuracy'),
        ('multi-label/mAP', 2.5, '+2.50 % mAP'),
        ('single-label/f1-score', 2.5, '+2.50 % f1-score'),
        ('task0_single-label/recall', 2.5, '+2.50 % recall'),
        ('coco/bbox_mAP_50', 0.025, '+2.50 AP'),
        ('pascal_voc/mAP', 0.025, '+2.50 AP'),
    ],
)
def test_a_difference_is_in_percent(metric, mean, said):
    sentence = difference_sentence(row(mean, None, 1), 'old', metric)
    assert sentence.startswith(f'new minus old: {said}: one run each')


def scored(students, labels):
    """What two classifiers say of two images, of a teacher that is right."""
    teacher = np.eye(3)[labels]
    images = {
        str(index): ImageScores(
            str(index),
            np.array([student]),
            teacher[index : index + 1],
            (np.array([student]), teacher[index : index + 1]),
            np.array([0.5 * index]),
            None,
            [NAMES[label]],
            True,
            {},
        )
        for index, (student, label) in enumerate(zip(students, labels))
    }
    pictures = dict.fromkeys(images, np.zeros((4, 4, 3), np.uint8))
    return Scored(NAMES, tuple(NAMES), pictures, images, {}, True)


@pytest.fixture
def classifiers():
    return dict(
        good=scored([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], [0, 1]),
        poor=scored([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], [0, 1]),
    )


def test_classifiers_are_scored_class_by_class(classifiers):
    found = scored_contents(classifiers, 'teacher', 1)
    assert found.models == ['teacher', 'good', 'poor'] and not found.boxes
    assert found.accuracy['good'] == dict(cat=100, dog=100)
    assert found.accuracy['poor'] == dict(cat=100, dog=0)
    assert found.confused['poor']['dog', 'fish'] == 1
    # The image on which they disagree.
    assert [entry.name for entry in found.entries] == ['1']


def test_students_may_have_their_classes_in_another_order(classifiers):
    images = {
        name: replace(
            each, student=each.student[:, ::-1], teacher=each.teacher[:, ::-1]
        )
        for name, each in classifiers['good'].images.items()
    }
    turned = classifiers['good']._replace(names=NAMES[::-1], images=images)
    both = dict(classifiers, turned=turned)
    found = scored_contents(both, 'teacher', 2)
    assert found.accuracy['turned'] == found.accuracy['good']
    found.rank(both)
    lists = found.entries[0].ranks[0]['lists']
    # Without the ranks: equal scores have any order.
    good, turned = (
        sorted(each[:3] for each in lists[name]['classes'])
        for name in ('good', 'turned')
    )
    assert turned == good


def test_agreement_with_the_teacher_is_a_mean_over_images(classifiers):
    # One of the poor one's two first classes is the teacher's. The teacher
    # orders 2 x 2 pairs; it puts dog before cat and before fish, and the
    # poor one has fish before dog, cat equal: 1 of 4 swapped.
    assert agreements(classifiers)['poor'] == (0.25, 50, 25)
    assert agreements(classifiers)['good'] == (0.25, 100, 0)


def test_answers_are_known_where_all_images_of_one_run_are(classifiers):
    found = answers(classifiers, dict(good=1, poor=1))
    assert found['poor'].tolist() == [True, False]
    assert answers(classifiers, dict(good=2, poor=2)) == {}
    part = {n: each._replace(whole=False) for n, each in classifiers.items()}
    assert answers(part, dict(good=1, poor=1)) == {}


@pytest.mark.parametrize('metric', ['accuracy/top1', 'accuracy/top5'])
def test_accuracies_have_an_interval_over_images(metric):
    def run(label, last):
        record = dict(
            label=label,
            seed=0,
            last=last,
            best=last,
            seconds=None,
            processor_seconds=None,
            agreement={},
            gradient_shares={},
        )
        return SimpleNamespace(
            label=label,
            seed=0,
            metric=metric,
            predictions=None,
            record=record,
        )

    runs = [run('old', 50.0), run('new', 75.0)]
    selection = SimpleNamespace(
        runs=runs,
        labels=['old', 'new'],
        teacher=None,
        baseline='old',
        of=lambda label: [run for run in runs if run.label == label],
    )
    right = torch.rand(200, generator=torch.Generator().manual_seed(0)).numpy()
    given = dict(old=right < 0.5, new=right < 0.75)
    _, rows = class_scores_and_rows(selection, 500, given)
    found = rows[1]['over_images']
    if metric != 'accuracy/top1':
        # Who is right first says nothing of another metric.
        assert found is None
        return
    share = ((right >= 0.5) & (right < 0.75)).mean()
    assert found['mean'] == [pytest.approx(100 * share)]
    # Normal approximation of a share: 1.96 sqrt(p (1 - p) / n).
    half = 196 * np.sqrt(share * (1 - share) / 200)
    assert found['high'][0] - found['low'][0] == pytest.approx(
        2 * half, rel=0.2
    )
    assert (rows[0]['compared'], rows[1]['compared']) == (False, True)


@pytest.fixture
def repository(tmp_path):
    """A repository of somebody else's with one commit."""
    name = ['-c', 'user.name=x', '-c', 'user.email=x@example.org']
    for command in (
        ['init', '--quiet'],
        ['add', '--all'],
        [*name, 'commit', '--quiet', '--allow-empty', '-m', 'x'],
    ):
        subprocess.run(['git', '-C', tmp_path, *command], check=True)
    return tmp_path


def test_the_commit_is_that_of_the_checkout_itself(repository, tmp_path):
    head = output_of('git', '-C', str(repository), 'rev-parse', 'HEAD')
    assert len(head) == 40 and commit(repository) == head
    (repository / 'new').touch()
    assert commit(repository) == f'{head}+'
    # As an environment in a project of one's own.
    installed = repository / '.venv' / 'site-packages'
    installed.mkdir(parents=True)
    assert commit(installed) == 'unknown'


def test_the_first_run_of_each_label_in_their_order():
    runs = [
        SimpleNamespace(label=label, seed=seed)
        for label, seed in (('kd', 0), ('kd', 1), ('alone', 1), ('kd', 2))
    ]
    assert firsts(runs) == {'kd': runs[0], 'alone': runs[2]}
    assert list(firsts(runs)) == ['kd', 'alone']


def test_a_table_escapes_its_cells():
    text = html_table(
        ['a', 'b'], [['<x>', '1']], caption='c & d', sortable=True
    )
    assert '<th scope="row">&lt;x&gt;</th><td class="number">1</td>' in text
    assert '<table data-sort><caption>c &amp; d</caption>' in text
    with pytest.raises(ValueError, match='zip'):
        html_table(['a', 'b'], [['only']])
