"""mmrkkd figure landscape: the loss around the weights of runs."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import classifier_config
from made_up_runs import classifier_folders, demo_folder
from matplotlib.text import Text
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from small_runs import CLASSES, random_weights
from torch.nn.functional import cross_entropy

from mmrkkd.commands.program import main
from mmrkkd.datasets import CLASSES as SHAPES
from mmrkkd.distillers.model_config import plain_model
from mmrkkd.distillers.readers.classifier import image_logits
from mmrkkd.evaluation.held_out_loss import HeldOutLoss, held_out_batches
from mmrkkd.report.figures import FIGURES
from mmrkkd.report.figures.landscape import LossGrids, scale
from mmrkkd.report.runs import find_runs

SIZES = ['--points', '3', '--images', '9', '--span', '0.5']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A student alone and a distilled one, of 12 images."""
    return classifier_folders(tmp_path_factory.mktemp('runs'))


@pytest.fixture
def folders(made, tmp_path):
    """The same, to be changed."""
    return [shutil.copytree(each, tmp_path / each.name) for each in made]


def draw(folders, *options):
    """Exit code of the command."""
    return main(['figure', 'landscape', *map(str, folders), *options])


def numbers_of(folder):
    return json.loads((folder / 'landscape.json').read_text())['numbers']


def student_of(folder):
    """The model of a run by hand, and its data preprocessor's numbers."""
    config = Config.fromfile(next(folder.glob('*/vis_data/config.py')))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config.model)
    weights = torch.load(folder / 'student.pth', weights_only=True)
    model.load_state_dict(weights['state_dict'])
    return model.eval(), config


def test_the_middle_is_the_loss_of_the_student(folders, tmp_path):
    assert draw(folders, *SIZES, '--out', str(tmp_path / 'out')) == 0
    for kind in ('png', 'svg', 'json'):
        assert (tmp_path / 'out' / f'landscape.{kind}').is_file()
    found = numbers_of(tmp_path / 'out')
    assert found['coordinates'] == [-0.5, 0, 0.5]
    assert found['loss'] == 'task' and found['images'] == 9
    # The same weights in both: the same directions, images and numbers.
    assert list(found['students']) == ['alone', 'distilled']
    one, other = found['students'].values()
    assert one == other
    # 9 of the 12 images, evenly spaced: 0, 1.375, 2.75, ...
    model, config = student_of(folders[0])
    root = config.val_dataloader.dataset.data_root
    chosen = np.linspace(0, 11, 9).round().astype(int)
    losses = []
    for index in chosen:
        name = CLASSES[index // 4]
        picture = Image.open(f'{root}/val/{name}/{index % 4}.png')
        # MMCV reads blue first, and the preprocessor is not told to turn it.
        pixels = np.asarray(picture)[..., ::-1].copy()
        inputs = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        logits = image_logits(model, (inputs - 120.0) / 60.0)
        losses.append(float(cross_entropy(logits, torch.tensor([index // 4]))))
    assert one['middle'] == pytest.approx(np.mean(losses), rel=1e-5)
    assert one['values'][1][1] == one['middle']
    around = {value for row in one['values'] for value in row}
    assert len(around) == 9


@pytest.mark.slow
def test_an_interrupted_figure_goes_on_where_it_was(
    folders, tmp_path, monkeypatch, capsys
):
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    assert draw(folders, *SIZES, '--out', str(whole)) == 0
    call, calls = HeldOutLoss.__call__, []

    def interrupted(self):
        calls.append(1)
        # One look at the middle, a row of three, and one point.
        if len(calls) == 6:
            raise KeyboardInterrupt
        return call(self)

    monkeypatch.setattr(HeldOutLoss, '__call__', interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(folders, *SIZES, '--out', str(out))
    rows = json.loads(
        (out / 'landscape_rows' / 'alone_task.json').read_text()
    )['rows']
    assert len(rows) == 1 and not (out / 'landscape.json').exists()
    capsys.readouterr()
    assert draw(folders, *SIZES, '--out', str(out)) == 0
    assert '9/9' in capsys.readouterr().err
    # 5 and the one that failed; 1 + 6, and the other's 1 + 9.
    assert len(calls) == 6 + 7 + 10
    assert numbers_of(out) == numbers_of(whole)
    # Once more, to draw it otherwise: nothing is made again.
    assert draw(folders, *SIZES, '--top', '9', '--out', str(out)) == 0
    assert len(calls) == 23
    assert numbers_of(out)['top'] == 9


def test_a_folder_with_another_grid_is_refused(folders, tmp_path, capsys):
    arguments = [*SIZES, '--out', str(tmp_path / 'out')]
    assert draw(folders[:1], *arguments) == 0
    path = tmp_path / 'out' / 'landscape.json'
    before = path.read_bytes()
    for option, value, message in (
        ('--seed', '1', 'seed (0 there, 1 now)'),
        ('--images', '3', 'images (9 there, 3 now)'),
        ('--span', '2', 'span (0.5 there, 2.0 now)'),
        ('--points', '5', 'points (3 there, 5 now)'),
    ):
        assert draw(folders[:1], *arguments, option, value) == 1
        error = capsys.readouterr().err
        assert 'alone_task.json is a grid of other settings' in error
        assert f'they differ in {message}: give those' in error
    weights = torch.load(folders[0] / 'student.pth', weights_only=True)
    weights['state_dict']['head.fc.bias'] += 1
    torch.save(weights, folders[0] / 'student.pth')
    assert draw(folders[:1], *arguments) == 1
    assert 'they differ in weights (' in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_distillation_s_losses_are_those_of_all_students(folders, tmp_path):
    arguments = [*SIZES, '--out', str(tmp_path / 'out')]
    assert draw(folders, *arguments, '--loss', 'total') == 0
    total = numbers_of(tmp_path / 'out')
    path = tmp_path / 'out' / 'landscape_rows' / 'alone_distillation.json'
    rows = json.loads(path.read_text())['rows']
    for row in rows:
        for point in row:
            assert set(point) == {'total', 'loss_task', 'loss_kd', 'loss_rank'}
            parts = sum(v for name, v in point.items() if name != 'total')
            assert point['total'] == pytest.approx(parts)
    # A student that is its own teacher: KL is 0, the order is the same.
    assert rows[1][1]['loss_kd'] == pytest.approx(0, abs=1e-6)
    assert rows[1][1]['loss_kd'] < min(rows[1][0]['loss_kd'], 1e-5)
    lowest = min(point['loss_rank'] for row in rows for point in row)
    assert rows[1][1]['loss_rank'] == lowest < 0
    # Another of its losses is there already.
    assert draw(folders, *arguments, '--loss', 'loss_rank') == 0
    rank = numbers_of(tmp_path / 'out')['students']['alone']
    assert rank['middle'] == lowest
    assert total['students']['alone']['middle'] == rows[1][1]['total']


def refused(capsys, tmp_path, folders, *options):
    """The error of a command that draws nothing."""
    out = tmp_path / 'out'
    assert draw(folders, *SIZES, '--out', str(out), *options) == 1
    assert not list(out.glob('**/*.*'))
    return capsys.readouterr().err


def test_a_loss_that_is_not_there_is_refused(folders, tmp_path, capsys):
    error = refused(capsys, tmp_path, folders, '--loss', 'rank')
    assert (
        '--loss must be task or one of total, loss_task, loss_kd, loss_rank, '
        "got 'rank'"
    ) in error
    error = refused(capsys, tmp_path, folders[:1], '--loss', 'total')
    assert 'none of the runs has a teacher' in error
    error = refused(
        capsys, tmp_path, folders, '--loss', 'total', '--losses-of', 'alone'
    )
    assert "--losses-of must be one of distilled, got 'alone'" in error


def test_losses_over_features_are_left_out(folders, tmp_path, capsys):
    path = next(folders[1].glob('*/vis_data/config.py'))
    config = Config.fromfile(path)
    # It has no layers, so that it would be refused if it were built.
    features = dict(type='mmrkkd.FitNetLoss')
    config.model.losses = [dict(type='mmrkkd.RankKDLoss'), features]
    config.dump(path)
    # What it learned, and a layer that was merged, stand in the checkpoint.
    weights = folders[1] / 'student.pth'
    content = torch.load(weights, weights_only=False)
    content['distiller'] = {
        '1.connectors.0.weight': torch.zeros(9, 9),
        'student.head.fc.weight': torch.zeros(3, 8),
    }
    torch.save(content, weights)
    error = refused(capsys, tmp_path, folders, '--loss', 'loss_fitnet')
    assert 'one of total, loss_task, loss_kd, loss_rank, got' in error
    config.model.losses = features
    config.dump(path)
    error = refused(capsys, tmp_path, folders, '--loss', 'total')
    assert 'distilled, seed 0 compares features alone' in error


@pytest.mark.parametrize('place', ['distiller', 'among the keys'])
def test_a_temperature_is_the_learned_one(folders, place, monkeypatch):
    """Of this version's checkpoints and of earlier ones."""
    path = next(folders[1].glob('*/vis_data/config.py'))
    config = Config.fromfile(path)
    config.model.losses = [
        dict(type='mmrkkd.FitNetLoss'),
        dict(type='mmrkkd.CTKDLoss'),
    ]
    config.dump(path)
    weights = folders[1] / 'student.pth'
    content = torch.load(weights, weights_only=False)
    learned = {
        '0.connectors.0.weight': torch.zeros(9, 9),
        '1.theta': torch.tensor(0.25),
    }
    if place == 'distiller':
        content['distiller'] = learned
    else:
        content['state_dict'].update(
            {f'distiller.{key}': value for key, value in learned.items()}
        )
    torch.save(content, weights)
    seen = []

    def stopped(self):
        seen.append(self.model.distiller[0].theta.item())
        raise KeyboardInterrupt

    monkeypatch.setattr(HeldOutLoss, '__call__', stopped)
    with pytest.raises(KeyboardInterrupt):
        draw(folders[1:], *SIZES, '--loss', 'total')
    assert seen == [0.25]


def test_missing_weights_are_named(folders, tmp_path, capsys):
    (folders[1] / 'student.pth').unlink()
    error = refused(capsys, tmp_path, folders)
    assert 'needs the weights of distilled, seed 0, and' in error
    assert 'holds no checkpoint' in error


def test_students_of_unlike_weights_are_refused(folders, tmp_path, capsys):
    path = next(folders[0].glob('*/vis_data/config.py'))
    config = Config.fromfile(path)
    config.model = dict(classifier_config(depth=14))
    config.dump(path)
    random_weights(config.model, folders[0] / 'student.pth')
    out = tmp_path / 'out'
    assert draw(folders, *SIZES, '--out', str(out)) == 1
    error = capsys.readouterr().err
    assert (
        'alone, seed 0 and distilled, seed 0 have unlike weights (backbone.'
        in error
    )
    assert 'draw them one by one' in error


def test_weights_that_are_no_numbers_have_no_landscape(
    folders, tmp_path, capsys
):
    weights = torch.load(folders[0] / 'student.pth', weights_only=True)
    weights['state_dict']['head.fc.bias'] *= float('nan')
    torch.save(weights, folders[0] / 'student.pth')
    error = refused(capsys, tmp_path, folders[:1])
    assert 'task of alone, seed 0 is nan at its own weights' in error


@pytest.mark.parametrize('value', ['4', '1', '0', 'x', '-3'])
def test_even_numbers_of_points_are_refused(value, capsys):
    with pytest.raises(SystemExit) as end:
        main(['figure', 'landscape', 'run', '--points', value])
    assert end.value.code == 2
    assert 'must be an odd number of at least 3' in capsys.readouterr().err


@pytest.mark.slow
def test_detectors_have_a_landscape(tmp_path):
    made = demo_folder(tmp_path / 'made', seeds=(0,))
    runs, _ = find_runs([made])
    for run in runs:
        if run.label in ('student', 'rkkd', 'teacher'):
            model = plain_model(run.config)
            path = run.folder / 'iter_8.pth'
            random_weights(model, path, 'mmdet', SHAPES)
    folders = [made / 'student', made / 'rkkd']
    options = ['--points', '3', '--images', '2', '--out', str(made / 'out')]
    assert draw(folders, *options) == 0
    students = numbers_of(made / 'out')['students']
    assert list(students) == ['student', 'rkkd']
    values = np.array(students['rkkd']['values'])
    assert np.isfinite(values).all() and len(np.unique(values)) == 9
    # The sum of the detector's four losses in training, by its own log.
    assert draw(folders, *options, '--loss', 'total') == 0
    path = made / 'out' / 'landscape_rows' / 'student_distillation.json'
    middle = json.loads(path.read_text())['rows'][1][1]
    own = ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox')
    assert {'loss_kd', 'loss_rank', *own} < set(middle)
    task = sum(middle[name] for name in own)
    # The distiller's only other draw of random numbers would be seen here.
    assert task == pytest.approx(students['student']['middle'], rel=1e-5)


class TestHeldOutLoss:
    """The measure by itself."""

    @pytest.fixture
    def measured(self, made):
        """The student, and a measure on 9 images in batches of 4, 4 and 1."""
        model, config = student_of(made[0])
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            _, batches, sizes = held_out_batches(config, 9)
        assert sizes == [4, 4, 1]
        return model, HeldOutLoss(model, batches, sizes, 0)

    def test_it_is_the_mean_over_images_of_any_batches(self, measured, made):
        model, measure = measured
        _, config = student_of(made[0])
        config.val_dataloader.batch_size = 9
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            _, *batches = held_out_batches(config, 9)
        whole = HeldOutLoss(model, *batches, 0)()
        assert measure()['task'] == pytest.approx(whole['task'], rel=1e-5)

    def test_it_changes_neither_model_nor_random_numbers(self, measured):
        model, measure = measured
        before = {k: v.clone() for k, v in model.state_dict().items()}
        state = torch.get_rng_state()
        assert measure() == measure()
        after = model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(part.training for part in model.children())


def test_numbers_of_the_figure():
    figure = FIGURES['landscape']
    places = [-1.0, -0.5, 0.0, 0.5, 1.0]
    # x² + y², and no number at a corner.
    rows = [[dict(a=x * x + y * y + 3, b=0.0) for x in places] for y in places]
    rows[0][0]['a'] = float('nan')
    found = LossGrids('a', 7, 2, places, dict(one=rows))
    args = type('Args', (), dict(top=None))
    numbers = figure.numbers(found, args)
    one = numbers['students']['one']
    assert one['middle'] == 3
    # Within 0.5: the middle, and four points at 0.25.
    assert one['rise'] == pytest.approx(4 * 0.25 / 5)
    assert numbers['within'] == 0.5
    assert np.isnan(one['values'][0][0]) and one['values'][4][4] == 5
    drawn = figure.draw(numbers)
    drawn.canvas.draw()
    width, height = drawn.canvas.get_width_height()
    texts = {
        text.get_text(): text.get_window_extent()
        for text in drawn.findobj(Text)
        if text.get_visible()
    }
    for word in ('one: 3, +0.2 around', 'second direction', 'loss (a)'):
        box = texts[word]
        assert box.x0 >= 0 and box.y0 >= 0, word
        assert box.x1 <= width and box.y1 <= height, word


def test_all_students_share_the_scale_that_each_fills():
    steep = np.array([[1.0, 5, 9, 70, 90]])
    flat = np.array([[2.0, 3, 4, 5, np.nan, 6]])
    # A quarter of the flat one's five numbers lies above 5.
    assert scale([steep, flat], None) == (1, 5)
    assert scale([steep, flat], 6.0) == (1, 6)
    with pytest.raises(ValueError, match='--top must be above the least lo'):
        scale([steep, flat], 0.5)
