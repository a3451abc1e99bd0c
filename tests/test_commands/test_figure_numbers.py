"""The papers' figures: their numbers against those done by hand."""

import base64
import io
import json
import math

import numpy as np
import pytest
import torch
from hand_made import METRIC, matched, options, run, selection, sweep
from made_up_runs import ROOT
from matplotlib.text import Text
from PIL import Image

from mmrkkd.cli import change_config, load_config
from mmrkkd.commands.figure import _finite
from mmrkkd.report.figures import FIGURES
from mmrkkd.report.figures.gradients import gradients

# made_up_runs knows where it is.
from experiments.methods import parse_methods  # isort: skip

SWEEPS = ROOT / 'configs' / 'classification' / 'image_folder'


def numbers(name, found, **values):
    return FIGURES[name].numbers(found, options(**values))


def softmax(*logits):
    total = sum(math.exp(z) for z in logits)
    return [math.exp(z) / total for z in logits]


# Figure 8: the student swaps the teacher's second and third class in the
# first of two samples: 1 of 6 pairs.
SWAPPED = matched(
    [[3, 2, 1, 0], [0, 1, 2, 3]], one=[[3, 1, 2, 0], [0, 1, 2, 3]]
)


def test_alignment_counts_which_rank_goes_where():
    found = numbers('alignment', SWAPPED)
    one = found['students']['one']
    assert one['share'] == [
        [100, 0, 0, 0],
        [0, 50, 50, 0],
        [0, 50, 50, 0],
        [0, 0, 0, 100],
    ]
    assert one['tau'] == pytest.approx(((5 - 1) / 6 + 1) / 2)
    # Two of eight classes are one place off.
    assert one['distance'] == 2 / 8
    assert one['first_kept'] == 100
    assert found['edges'] == [0, 1, 2, 3, 4]


def test_alignment_puts_ranks_of_many_classes_together():
    teacher = np.arange(100.0)[None]
    found = numbers('alignment', matched(teacher, one=-teacher))
    assert found['edges'] == list(range(0, 101, 2))
    share = np.array(found['students']['one']['share'])
    # Reversed: the first two go where the last two were.
    assert (share == 100 * np.eye(50)[::-1]).all()
    assert found['students']['one']['first_kept'] == 0


def test_distributions_share_out_all_values():
    found = numbers(
        'distributions',
        matched([[0, 2]], one=[[1, 1]]),
        temperature=1.0,
        bins=2,
    )
    assert found['logit_edges'] == [0, 1, 2]
    teacher, one = found['models'].values()
    assert list(found['models']) == ['teacher', 'one']
    assert teacher['logits'] == [50, 50] and one['logits'] == [0, 100]
    # Bins from 1e-6 to 1e-3 to 1, and the least probability is .12.
    assert found['probability_edges'] == pytest.approx([1e-6, 1e-3, 1])
    assert teacher['probabilities'] == one['probabilities'] == [0, 100]
    assert teacher['small'] == 0
    assert teacher['deviation'] == pytest.approx(math.sqrt(2))
    assert one['deviation'] == 0


def test_distributions_soften_and_hold_tiny_probabilities():
    # softmax([0, 20]) has 2e-9, below the least that is drawn.
    found = numbers(
        'distributions',
        matched([[0, 2]], one=[[1, 1]]),
        temperature=0.1,
        bins=2,
    )
    teacher = found['models']['teacher']
    assert teacher['probabilities'] == [50, 50] and teacher['small'] == 50


TEACHER, NEAR, FAR = (0.5, 0.3, 0.2), (0.40, 0.41, 0.19), (0.9, 0.05, 0.05)


def kl(teacher, student):
    return sum(t * math.log(t / s) for t, s in zip(teacher, student))


def test_a_smaller_kl_with_the_wrong_class_is_found():
    # In the second sample both students are right: it does not count.
    found = matched(
        np.log([TEACHER, TEACHER]),
        [0, 0],
        far=np.log([FAR, FAR]),
        near=np.log([NEAR, TEACHER]),
    )
    result = numbers('misleading-kl', found, temperature=1.0, classes=2)
    assert (result['comparable'], result['misleading']) == (1, 1)
    case = result['case']
    assert case['sample'] == 'image 0' and case['true'] == 'cat'
    assert case['classes'] == ['cat', 'dog']
    assert case['teacher']['probabilities'] == pytest.approx([0.5, 0.3])
    wrong, right = case['students']
    assert (wrong['label'], wrong['first']) == ('near', 'dog')
    assert (right['label'], right['first']) == ('far', 'cat')
    assert wrong['kl'] == pytest.approx(kl(TEACHER, NEAR))
    assert right['kl'] == pytest.approx(kl(TEACHER, FAR))
    assert wrong['kl'] < right['kl']
    # One of three pairs is the wrong way round.
    assert wrong['tau'] == pytest.approx(1 / 3)
    assert 'in 1.' in result['note']


def test_it_is_said_that_no_such_case_is_there():
    wrong = (0.1, 0.8, 0.1)
    found = matched(
        np.log([TEACHER]), [0], bad=np.log([wrong]), good=np.log([FAR])
    )
    result = numbers('misleading-kl', found, temperature=1.0, classes=2)
    assert kl(TEACHER, wrong) > kl(TEACHER, FAR)
    assert (result['comparable'], result['misleading']) == (1, 0)
    assert result['case'] is None and 'None was found' in result['note']
    (axis,) = FIGURES['misleading-kl'].draw(result).axes
    assert 'None was found' in axis.texts[0].get_text()


def test_a_wrong_teacher_is_no_such_case():
    found = matched(
        np.log([TEACHER]), [2], one=np.log([NEAR]), two=np.log([TEACHER[::-1]])
    )
    result = numbers('misleading-kl', found, temperature=1.0, classes=2)
    assert result['comparable'] == 0


def test_misleading_kl_needs_true_classes():
    unknown = matched([[1, 0]], one=[[1, 0]], two=[[1, 0]])
    with pytest.raises(ValueError, match='needs true classes'):
        numbers('misleading-kl', unknown, temperature=1.0, classes=2)


def test_standardized_averages_by_the_teacher_s_rank():
    found = numbers(
        'standardized',
        matched([[2, 0], [0, 4]], one=[[0, 2], [0, 4]]),
        temperature=2.0,
        base_temperature=1.0,
    )
    first = (softmax(1, 0)[0] + softmax(2, 0)[0]) / 2
    teacher, one = found['models'].values()
    assert teacher['kd'] == pytest.approx([first, 1 - first])
    own = (softmax(0, 1)[0] + softmax(2, 0)[0]) / 2
    assert one['kd'] == pytest.approx([own, 1 - own])
    # Two logits standardise to plus and minus 1 / sqrt 2.
    high, low = softmax(math.sqrt(0.5), -math.sqrt(0.5))
    assert teacher['lskd'] == pytest.approx([high, low], abs=1e-6)
    assert one['lskd'] == pytest.approx([0.5, 0.5], abs=1e-6)


STUDENT_LOGITS, TEACHER_LOGITS = (0.3, -1.0, 2.0), (1.0, 0.5, -2.0)


def minus_tau(student, teacher, steepness):
    """By the paper's algorithm 1, one pair after the other."""

    def hat(z):
        mean = sum(z) / len(z)
        variance = sum((x - mean) ** 2 for x in z) / (len(z) - 1)
        return [(x - mean) / math.sqrt(variance) for x in z]

    s, t = hat(student), hat(teacher)
    pairs = [(i, j) for i in range(len(s)) for j in range(i)]
    return -sum(
        math.tanh(steepness * (s[i] - s[j]))
        * math.tanh(steepness * (t[i] - t[j]))
        for i, j in pairs
    ) / len(pairs)


def test_gradients_are_those_of_the_equations():
    found = gradients(
        torch.tensor([STUDENT_LOGITS], dtype=torch.float64),
        torch.tensor([TEACHER_LOGITS], dtype=torch.float64),
        temperature=2.0,
        steepness=1.5,
    )
    student = softmax(*(z / 2 for z in STUDENT_LOGITS))
    teacher = softmax(*(z / 2 for z in TEACHER_LOGITS))
    # d T^2 KL / d z = T (p_s - p_t).
    expected = [2 * (s - t) for s, t in zip(student, teacher)]
    assert found['kl'][0] == pytest.approx(expected, abs=1e-12)
    step = 1e-5
    for place in range(3):
        high, low = list(STUDENT_LOGITS), list(STUDENT_LOGITS)
        high[place] += step
        low[place] -= step
        slope = minus_tau(high, TEACHER_LOGITS, 1.5) - minus_tau(
            low, TEACHER_LOGITS, 1.5
        )
        # Central differences: an error of the order of step^2.
        assert found['rank'][0, place] == pytest.approx(
            slope / (2 * step), abs=1e-6
        )


def test_shares_of_the_gradient_stand_by_the_logit():
    # The second sample has no KL, so no share of its gradient.
    found = matched(
        [TEACHER_LOGITS, STUDENT_LOGITS], one=[STUDENT_LOGITS, STUDENT_LOGITS]
    )
    result = numbers(
        'gradients', found, temperature=1.0, steepness=1.0, bins=3
    )
    one = result['students']['one']
    assert one['logit'] == pytest.approx(sorted(STUDENT_LOGITS))
    sizes = [
        abs(s - t)
        for s, t in zip(softmax(*STUDENT_LOGITS), softmax(*TEACHER_LOGITS))
    ]
    shares = [100 * size / sum(sizes) for size in sizes]
    by_logit = [shares[1], shares[0], shares[2]]
    assert one['kl']['share'] == pytest.approx(by_logit)
    halved = [size / 2 for size in (sizes[1], sizes[0], sizes[2])]
    assert one['kl']['size'] == pytest.approx(halved)
    assert sum(one['rank']['share']) == pytest.approx(100)


def test_teacher_order_sorts_by_the_teacher():
    found = numbers(
        'teacher-order',
        matched([[2, 0], [0, 4]], one=[[1, 0], [0, -2]]),
    )
    teacher, one = found['models'].values()
    # Minus their means and sorted: (1, -1) and (2, -2).
    assert teacher['mean'] == [1.5, -1.5] and teacher['tau'] == 1
    # (.5, -.5) and, the other way round, (-1, 1).
    assert one['mean'] == [-0.25, 0.25] and one['tau'] == 0
    assert one['low'] == pytest.approx([-1 + 0.1 * 1.5, -0.5 + 0.1 * 1.5])
    assert one['high'] == pytest.approx([0.5 - 0.1 * 1.5, 1 - 0.1 * 1.5])


def test_outputs_show_single_samples():
    found = matched(
        [[3, 1], [0, 2], [5, 5]], [0, -1, 1], one=[[0, 1], [4, 0], [1, 2]]
    )
    result = numbers('outputs', found, samples=2)
    first, last = result['samples']
    assert (first['name'], first['true']) == ('image 0', 'cat')
    assert (last['name'], last['true']) == ('image 2', 'dog')
    assert first['logits'] == dict(teacher=[1, -1], one=[-0.5, 0.5])
    assert first['first'] == dict(teacher='cat', one='dog')
    more = numbers('outputs', found, samples=9)['samples']
    assert [each['true'] for each in more] == ['cat', None, 'dog']


def test_outputs_of_detectors_show_the_box():
    found = matched(
        [[3, 1]], [0], one=[[0, 1]], boxes=np.array([[1.0, 2.0, 4.0, 7.0]])
    )
    found.pictures['image 0'][2:7, 1:4] = (255, 0, 0)
    (sample,) = numbers('outputs', found, samples=1)['samples']
    data = base64.b64decode(sample['picture'])
    pixels = np.array(Image.open(io.BytesIO(data)))
    # Rounded outwards: one column and row of white.
    assert pixels.shape == (6, 4, 3)
    assert (pixels[:5, :3] == (255, 0, 0)).all()
    assert (pixels[5] == 255).all() and (pixels[:, 3] == 255).all()


def test_outputs_turn_photos_as_the_models_see_them(tmp_path):
    found = matched(
        [[3, 1]], [0], one=[[0, 1]], boxes=np.array([[1.0, 2.0, 4.0, 7.0]])
    )
    seen = np.full((9, 6, 3), 255, np.uint8)
    seen[2:8, 1:5] = (255, 0, 0)
    # The file lies on its side; orientation 6 says: turn it clockwise.
    orientation = Image.Exif()
    orientation[0x0112] = 6
    photo = Image.fromarray(np.rot90(seen))
    photo.save(tmp_path / 'photo.png', exif=orientation)
    found.pictures['image 0'] = str(tmp_path / 'photo.png')
    (sample,) = numbers('outputs', found, samples=1)['samples']
    data = base64.b64decode(sample['picture'])
    pixels = np.array(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(pixels, seen[2:8, 1:5])


def entries(*taus):
    return [
        {'kd/tau': tau, 'kd/kl': 1.0, 'iter': i, 'step': i, 'epoch': 1}
        for i, tau in enumerate(taus, 1)
    ]


def test_training_averages_over_an_epoch(tmp_path):
    folders = [
        run(tmp_path / str(seed), 'rkkd', 60 + seed, seed, {}, entries(*taus))
        for seed, taus in enumerate([(0.1, 0.3), (0.5, 0.5)])
    ]
    result = numbers('training', selection(*folders))
    assert result['keys'] == [METRIC, 'kd/tau', 'kd/kl']
    first, second = (
        seed for seeds in result['runs'].values() for seed in seeds
    )
    assert first['kd/tau'] == [(1, pytest.approx(0.2))]
    assert second['kd/tau'] == [(1, 0.5)]
    assert (first[METRIC], second[METRIC]) == ([(1, 60)], [(1, 61)])


def test_training_needs_a_run_with_a_teacher(tmp_path):
    with pytest.raises(ValueError, match='none of the runs alone has logged'):
        numbers('training', selection(run(tmp_path, 'alone')))


@pytest.mark.parametrize('content', ['', '{"loss": 1.', '\x00\x01'])
def test_training_names_a_log_that_cannot_be_read(tmp_path, content):
    folder = run(tmp_path, 'rkkd', losses={}, log=entries(0.1))
    (log,) = folder.glob('*/vis_data/scalars.json')
    log.write_text(content)
    with pytest.raises(ValueError, match='scalars.json'):
        numbers('training', selection(folder))


RANK = dict(type='mmrkkd.RankKDLoss', rank_weight=0.9)
CHANNELS = dict(
    kd=(dict(type='mmrkkd.KDLoss'), 40),
    all=(RANK, 44),
    top50=(dict(RANK, channel_share=0.5), 43),
    min10=(dict(RANK, channel_share=0.1, channel_order='min'), 41),
    # A list of losses is looked through too.
    min50=([dict(RANK, channel_share=0.5, channel_order='min')], 42),
)


def test_channels_run_from_none_to_all(tmp_path):
    result = numbers('channels', selection(sweep(tmp_path, CHANNELS)))
    assert result['metric'] == METRIC
    shown = {
        order: [(p['share'], p['mean'], p['label']) for p in points]
        for order, points in result['lines'].items()
    }
    # Seeds 0 and 1 score half a point below and above the mean.
    assert shown == dict(
        top=[(0, 40.5, 'kd'), (50, 43.5, 'top50'), (100, 44.5, 'all')],
        min=[
            (0, 40.5, 'kd'),
            (10, 41.5, 'min10'),
            (50, 42.5, 'min50'),
            (100, 44.5, 'all'),
        ],
    )
    point = result['lines']['top'][0]
    assert point['deviation'] == pytest.approx(math.sqrt(0.5))
    assert point['by_seed'] == {'0': 40, '1': 41}


def test_channels_of_one_order_draw_one_line(tmp_path):
    cells = {label: CHANNELS[label] for label in ('kd', 'min10')}
    folder = sweep(tmp_path, cells, seeds=[0])
    result = numbers('channels', selection(folder))
    assert list(result['lines']) == ['min']
    assert result['lines']['min'][0]['deviation'] is None


def test_a_weight_of_0_is_no_ranking(tmp_path):
    off = dict(RANK, rank_weight=0, channel_share=0.3)
    cells = dict(off=(off, 40), top50=CHANNELS['top50'])
    result = numbers('channels', selection(sweep(tmp_path, cells)))
    assert [p['share'] for p in result['lines']['top']] == [0, 50]


def test_two_methods_at_one_place_are_refused(tmp_path):
    cells = dict(CHANNELS, k4=(dict(RANK, steepness=4), 45))
    with pytest.raises(ValueError, match='all and k4 both stand at 100%'):
        numbers('channels', selection(sweep(tmp_path, cells)))


def test_channels_need_their_sweep(tmp_path):
    cells = dict(kd=CHANNELS['kd'], all=CHANNELS['all'])
    folder = sweep(tmp_path / 'sweep', cells)
    with pytest.raises(ValueError, match=r'channels\.yml'):
        numbers('channels', selection(folder))
    alone = run(tmp_path, 'alone')
    with pytest.raises(ValueError, match='none of the runs .* has a teacher'):
        numbers('channels', selection(alone))


def weights(kd, rank):
    return dict(RANK, kd_weight=kd, rank_weight=rank)


GRID = dict(
    a=(weights(0.1, 1), 10),
    b=(weights(0.9, 1), 20),
    c=(weights(0.1, 4), 30),
    other=(dict(type='mmrkkd.KDLoss'), 40),
)
KEYS = dict(across='model.losses.kd_weight', up='model.losses.rank_weight')


def test_the_grid_has_a_cell_for_each_pair(tmp_path):
    found = selection(sweep(tmp_path, GRID))
    result = numbers('coefficients', found, **KEYS)
    assert result['across_values'] == [0.1, 0.9]
    assert result['up_values'] == [1, 4]
    (a, b), (c, missing) = result['cells']
    assert [cell['mean'] for cell in (a, b, c)] == [10.5, 20.5, 30.5]
    assert missing is None
    assert a['deviation'] == pytest.approx(math.sqrt(0.5))
    assert 'Not in the grid' in result['note'] and 'other' in result['note']


def test_a_grid_needs_two_values_of_each(tmp_path):
    found = selection(sweep(tmp_path, dict(a=GRID['a'], b=GRID['b'])))
    with pytest.raises(ValueError, match=r'two values of .*, got .*\[1\]'):
        numbers('coefficients', found, **KEYS)
    with pytest.raises(ValueError, match='state none; name the settings'):
        numbers('coefficients', found, across='model.no.such', up='model.x.0')


def test_the_grid_reads_lists_of_losses(tmp_path):
    cells = {
        f'{kd}-{k}': ([dict(kd=kd), dict(steepness=k)], 10 * kd + k)
        for kd in (1, 2)
        for k in (1, 4)
    }
    result = numbers(
        'coefficients',
        selection(sweep(tmp_path, cells, seeds=[0])),
        across='model.losses.0.kd',
        up='model.losses.1.steepness',
    )
    means = [[cell['mean'] for cell in row] for row in result['cells']]
    assert means == [[11, 21], [14, 24]]


DRAWN = {
    'alignment': lambda folder: numbers('alignment', SWAPPED),
    'distributions': lambda folder: numbers(
        'distributions', SWAPPED, temperature=1.0, bins=4
    ),
    'misleading-kl': lambda folder: numbers(
        'misleading-kl',
        matched(np.log([TEACHER]), [0], one=np.log([NEAR]), two=np.log([FAR])),
        temperature=1.0,
        classes=3,
    ),
    'standardized': lambda folder: numbers(
        'standardized', SWAPPED, temperature=4.0, base_temperature=2.0
    ),
    'gradients': lambda folder: numbers(
        'gradients', SWAPPED, temperature=1.0, steepness=1.0, bins=4
    ),
    'teacher-order': lambda folder: numbers('teacher-order', SWAPPED),
    'outputs': lambda folder: numbers('outputs', SWAPPED, samples=2),
    'training': lambda folder: numbers(
        'training',
        selection(run(folder, 'one', losses={}, log=entries(0.1, 0.2))),
    ),
    'channels': lambda folder: numbers(
        'channels', selection(sweep(folder, CHANNELS))
    ),
    'coefficients': lambda folder: numbers(
        'coefficients', selection(sweep(folder, GRID)), **KEYS
    ),
}
# What must be readable in each.
WORDS = {
    'alignment': ['one: tau 0.83', "teacher's rank", "student's rank"],
    'distributions': [
        'Logits',
        'Probabilities, T = 1',
        'teacher (0 % below 0.01)',
        'one (0 % below 0.01)',
    ],
    'misleading-kl': [
        'True class: cat (star)',
        'one: dog\nKL 0.028, tau 0.33',
        'cat *',
    ],
    'standardized': [
        'KD: T = 4',
        'LSKD: standardised, T = 2',
        'teacher',
        'one',
    ],
    'gradients': ['one', 'KL', 'ranking', '1/C', "student's logit"],
    'teacher-order': ['one: tau 0.83', 'teacher', 'one'],
    'outputs': ['cat: teacher, one', 'not annotated', 'owl'],
    'training': [
        'Accuracy (top 1)',
        'Kendall tau to the teacher',
        'KL divergence from the teacher',
        'epoch',
        'one',
    ],
    'channels': [
        'ranked classes, %',
        '% accuracy',
        "the teacher's smallest logits",
    ],
    'coefficients': [
        'model.losses.kd_weight',
        '10.50\n± 0.71',
        '% accuracy',
        '0.9',
    ],
}


@pytest.mark.parametrize('name', DRAWN)
def test_each_is_drawn_from_its_numbers_alone(name, tmp_path):
    content = json.loads(json.dumps(DRAWN[name](tmp_path)))
    figure = FIGURES[name].draw(content)
    figure.canvas.draw()
    texts = {
        text.get_text(): text.get_window_extent()
        for text in figure.findobj(Text)
        if text.get_text() and text.get_visible()
    }
    assert [word for word in WORDS[name] if word not in texts] == []
    # None is cut off at the figure's edge.
    width, height = figure.canvas.get_width_height()
    for word in WORDS[name]:
        box = texts[word]
        assert box.x0 >= 0 and box.y0 >= 0, word
        assert box.x1 <= width and box.y1 <= height, word


DIVERGED = matched(
    [[3, 2, 1, 0], [0, 1, 2, 3]], [0, 3], one=np.full((2, 4), np.nan)
)


@pytest.mark.parametrize(
    ('name', 'values', 'word'),
    [
        ('alignment', {}, 'one: tau -'),
        ('teacher-order', {}, 'one: tau -'),
        ('distributions', dict(temperature=1.0, bins=4), 'Logits'),
        ('outputs', dict(samples=2), 'cat: teacher, one'),
        (
            'standardized',
            dict(temperature=4.0, base_temperature=2.0),
            'KD: T = 4',
        ),
    ],
)
def test_a_student_that_has_diverged_is_a_gap(name, values, word):
    figure = FIGURES[name].draw(_finite(numbers(name, DIVERGED, **values)))
    figure.canvas.draw()
    assert word in {text.get_text() for text in figure.findobj(Text)}


def test_a_score_that_is_no_number_is_a_gap_in_the_grid(tmp_path):
    cells = dict(GRID)
    (label, (losses, _)), *_ = cells.items()
    cells[label] = losses, math.nan
    found = selection(sweep(tmp_path, cells, seeds=[0]))
    figure = FIGURES['coefficients'].draw(
        _finite(numbers('coefficients', found, **KEYS))
    )
    figure.canvas.draw()
    assert '-' in {text.get_text() for text in figure.findobj(Text)}


def test_a_misleading_case_without_a_tau_is_drawn():
    content = DRAWN['misleading-kl'](None)
    content['case']['students'][0].update(kl=None, tau=None)
    figure = FIGURES['misleading-kl'].draw(content)
    titles = {text.get_text() for text in figure.findobj(Text)}
    assert 'one: dog\nKL -, tau -' in titles


def test_every_figure_has_a_test_of_its_picture():
    # The loss landscape has its own, with its own input.
    assert set(FIGURES) - set(DRAWN) <= {'landscape'}
    for figure in FIGURES.values():
        assert figure.title and figure.source and figure.reading.endswith('.')


def as_trained(file, folder):
    """The cells of a sweep file with a made-up score each."""
    methods, _ = parse_methods([str(SWEEPS / file)])
    for number, method in enumerate(methods):
        config = load_config(method.config)
        change_config(config, method.options)
        made = run(folder / method.label, 'seed0', number)
        config.dump(made / 'cell_config.py')
        result = dict(label=method.label, seed=0, metric=METRIC)
        (made / 'result.json').write_text(json.dumps(result))
    return selection(folder)


@pytest.mark.slow
def test_the_sweep_of_channels_fills_its_figure(tmp_path):
    result = numbers('channels', as_trained('channels.yml', tmp_path))
    for order in ('top', 'min'):
        points = result['lines'][order]
        assert [(point['share'], point['label']) for point in points] == [
            (0, 'kd'),
            (10, f'{order}10'),
            (30, f'{order}30'),
            (50, f'{order}50'),
            (100, 'all'),
        ]


@pytest.mark.slow
def test_the_sweep_of_coefficients_fills_its_figure(tmp_path):
    found = as_trained('coefficients.yml', tmp_path)
    result = numbers('coefficients', found, **KEYS)
    assert result['across_values'] == result['up_values'] == [0.1, 0.9, 4]
    labels = [[cell['label'] for cell in row] for row in result['cells']]
    assert labels == [
        [f'kl{kd}-rank{rank}' for kd in (0.1, 0.9, 4)]
        for rank in (0.1, 0.9, 4)
    ]
    assert 'note' not in result
