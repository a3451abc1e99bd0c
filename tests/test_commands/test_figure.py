"""mmrkkd figure: what is written, and what is refused."""

import json
import shutil

import pytest
import torch
from hand_made import run, sweep
from made_up_runs import ROOT, by_hand, classifier_folders, demo_folder
from small_runs import CLASSES, random_weights

from mmrkkd.commands import figure
from mmrkkd.commands.program import main
from mmrkkd.datasets import CLASSES as SHAPES
from mmrkkd.distillers.model_config import plain_model
from mmrkkd.report.figures import FIGURES
from mmrkkd.report.figures.alignment import Alignment
from mmrkkd.report.runs import find_runs


def drawn(capsys, *arguments):
    """What was printed."""
    assert main(['figure', *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments, code=1):
    """What was complained about."""
    assert main(['figure', *map(str, arguments)]) == code
    return capsys.readouterr().err


@pytest.fixture(scope='module')
def classifiers(tmp_path_factory):
    """A student alone and a distilled one with the teacher's weights."""
    return classifier_folders(tmp_path_factory.mktemp('classifiers'))


def losses(**changes):
    return dict(type='mmrkkd.RankKDLoss', **changes)


@pytest.fixture
def channels(tmp_path):
    return sweep(
        tmp_path / 'sweep',
        dict(
            kd=(dict(type='mmrkkd.KDLoss'), 40),
            top=(losses(channel_share=0.5), 42),
        ),
    )


def test_the_list_tells_every_figure(capsys):
    with pytest.raises(SystemExit) as end:
        main(['figure', '--help'])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for name, each in FIGURES.items():
        assert f'  {name} ' in text
        assert f'{each.title} ({each.source})' in text
    sources = [each.source for each in FIGURES.values()]
    rkkd = [f'RKKD, figure {number}' for number in range(1, 11)]
    assert sources == [*rkkd, 'LRA, figure 3']


@pytest.mark.parametrize('name', FIGURES)
def test_every_figure_has_a_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit) as end:
        main(['figure', name, '--help'])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f'usage: mmrkkd figure {name} ')
    # argparse breaks lines, at hyphens too.
    assert ''.join(FIGURES[name].reading.split()) in ''.join(text.split())


def test_without_a_name_the_list_is_an_error(capsys):
    assert main(['figure']) == 2
    assert 'usage: mmrkkd figure NAME RUN' in capsys.readouterr().out


def test_an_unknown_figure_suggests_the_nearest(capsys):
    error = refused(capsys, 'alignement', 'run', code=2)
    assert "no figure 'alignement': did you mean 'alignment'?" in error
    assert 'misleading-kl' in error


def test_picture_and_numbers_are_written(channels, capsys):
    out = drawn(capsys, 'channels', channels)
    folder = channels / 'figures'
    assert f'Figure: {folder / "channels.png"}' in out
    assert sorted(path.name for path in folder.iterdir()) == [
        'channels.json',
        'channels.png',
        'channels.svg',
    ]
    assert (folder / 'channels.png').read_bytes()[1:4] == b'PNG'
    # Words stay words, for a search and for another program.
    assert 'ranked classes, %' in (folder / 'channels.svg').read_text()
    content = json.loads((folder / 'channels.json').read_text())
    points = content['numbers']['lines']['top']
    assert [point['mean'] for point in points] == [40.5, 42.5]
    assert content['figure'] == 'channels'
    assert content['source'] == 'RKKD, figure 5'
    assert content['command'] == f'mmrkkd figure channels {channels}'
    assert content['runs']['kd, seed 0'] == str(channels / 'kd' / 'seed0')


def test_the_same_runs_give_the_same_files(channels, tmp_path, capsys):
    drawn(capsys, 'channels', channels)
    first = {
        path.name: path.read_bytes()
        for path in (channels / 'figures').iterdir()
    }
    drawn(capsys, 'channels', channels)
    for name, content in first.items():
        assert (channels / 'figures' / name).read_bytes() == content


def test_out_names_the_folder(channels, tmp_path, capsys):
    drawn(capsys, 'channels', channels, '--out', tmp_path / 'a' / 'b')
    assert (tmp_path / 'a' / 'b' / 'channels.png').is_file()
    assert not (channels / 'figures').exists()


def test_nothing_is_written_where_drawing_fails(
    channels, tmp_path, capsys, monkeypatch
):
    def fail(self, numbers):
        raise ValueError('no ink')

    monkeypatch.setattr(type(FIGURES['channels']), 'draw', fail)
    assert 'no ink' in refused(capsys, 'channels', channels)
    assert not (channels / 'figures').exists()


def test_what_is_not_finite_becomes_null(channels, capsys, monkeypatch):
    kind = type(FIGURES['channels'])
    whole = kind.numbers

    def with_gap(self, found, args):
        return dict(whole(self, found, args), gap=[float('nan'), 1.0])

    monkeypatch.setattr(kind, 'numbers', with_gap)
    drawn(capsys, 'channels', channels)
    text = (channels / 'figures' / 'channels.json').read_text()
    assert json.loads(text)['numbers']['gap'] == [None, 1.0]
    assert 'NaN' not in text


@pytest.mark.parametrize('name', ['distributions', 'alignment'])
def test_figures_of_logits_run_the_models(name, classifiers, capsys, tmp_path):
    out = tmp_path / 'out'
    drawn(capsys, name, *classifiers, '--out', out, '--images', 12)
    content = json.loads((out / f'{name}.json').read_text())['numbers']
    assert content['samples'] == 12
    if name == 'alignment':
        # Teacher and students have the same weights.
        assert list(content['students']) == ['alone', 'distilled']
        for one in content['students'].values():
            assert one['tau'] == 1 and one['share'][0][0] == 100
    else:
        teacher, *students = content['models'].values()
        assert all(student == teacher for student in students)


def test_outputs_tell_true_classes_and_show_the_images(
    classifiers, capsys, tmp_path
):
    drawn(capsys, 'outputs', *classifiers, '--out', tmp_path, '--images', 12)
    content = json.loads((tmp_path / 'outputs.json').read_text())['numbers']
    samples = content['samples']
    assert len(samples) == 4 and content['classes'] == list(CLASSES)
    for sample in samples:
        assert f'/val/{sample["true"]}/' in sample['name']
        teacher, alone, distilled = sample['logits'].values()
        assert teacher == alone == distilled
        assert sum(teacher) == pytest.approx(0, abs=1e-5)


def test_that_no_misleading_case_is_there_is_printed(
    classifiers, capsys, tmp_path
):
    text = drawn(
        capsys,
        'misleading-kl',
        *classifiers,
        '--out',
        tmp_path,
        '--images',
        12,
    )
    assert 'None was found' in text
    content = json.loads((tmp_path / 'misleading-kl.json').read_text())
    assert content['numbers']['comparable'] == 0


@pytest.mark.slow
def test_detectors_are_drawn_on_their_annotated_boxes(tmp_path, capsys):
    folder = demo_folder(tmp_path / 'made', seeds=(0,), images=24)
    for made in find_runs([folder])[0]:
        if made.label == 'rkkd':
            shutil.rmtree(made.folder)
            continue
        model = plain_model(made.config)
        weights = made.folder / 'iter_8.pth'
        random_weights(model, weights, 'mmdet', SHAPES)
    drawn(capsys, 'outputs', folder, '--images', 2, '--samples', 3)
    path = folder / 'figures' / 'outputs.json'
    content = json.loads(path.read_text())['numbers']
    assert content['classes'] == [*SHAPES, 'background']
    assert content['models'] == ['teacher', 'student', 'kd']
    assert all(sample['true'] in SHAPES for sample in content['samples'])
    one = content['samples'][0]['logits']
    assert len(one['teacher']) == len(SHAPES) + 1
    # The students have one set of weights, the teacher another.
    assert one['student'] == one['kd'] != one['teacher']


def test_runs_that_are_not_there_are_refused(tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    missing = refused(capsys, 'training', tmp_path / 'missing')
    assert 'is no folder; give the work directory of a training' in missing
    empty = refused(capsys, 'training', tmp_path / 'empty')
    assert 'empty holds no run: there is neither a log' in empty
    assert not list(tmp_path.rglob('figures'))


def test_a_run_without_checkpoints_is_refused(tmp_path, capsys):
    folders = classifier_folders(tmp_path)
    (folders[0] / 'student.pth').unlink()
    error = refused(capsys, 'alignment', *folders)
    assert 'the figure alignment needs the weights of alone' in error
    assert f'{folders[0]} holds no checkpoint; put it back' in error
    assert '--scores' not in error
    assert not (folders[0] / 'figures').exists()


def test_a_run_without_a_teacher_is_refused(classifiers, capsys):
    error = refused(capsys, 'alignment', classifiers[0])
    assert 'of the runs alone, seed 0 has one; give a distillation' in error
    assert '--scores' not in error


def test_one_student_is_refused_before_it_is_run(
    classifiers, capsys, monkeypatch
):
    monkeypatch.setattr(figure, 'score_runs', None)
    error = refused(capsys, 'misleading-kl', classifiers[1])
    assert 'two students of a teacher, got distilled; give another' in error


def test_runs_of_two_tasks_are_refused(classifiers, tmp_path, capsys):
    other = by_hand(
        tmp_path,
        'detector',
        model=dict(type='FasterRCNN'),
        val_dataloader=dict(
            dataset=dict(type='CocoDataset', ann_file='boxes.json')
        ),
    )
    error = refused(capsys, 'alignment', *classifiers, other)
    assert 'alone, seed 0 and detector are validated on unlike data' in error


def test_a_log_that_cannot_be_read_is_named(tmp_path, capsys):
    folder = run(tmp_path, 'rkkd', losses=losses())
    (log,) = folder.glob('*/vis_data/scalars.json')
    log.write_bytes(b'\xff\xfe\x00')
    error = refused(capsys, 'training', folder)
    assert str(log) in error
    assert not (folder / 'figures').exists()


def test_a_file_is_no_folder_for_figures(channels, tmp_path, capsys):
    (tmp_path / 'taken').write_text('mine')
    error = refused(capsys, 'channels', channels, '--out', tmp_path / 'taken')
    assert '--out must be a folder, got the file' in error
    assert (tmp_path / 'taken').read_text() == 'mine'


@pytest.mark.parametrize(
    ('name', 'option', 'value', 'rule'),
    [
        ('alignment', '--images', '0', 'a whole number of at least 1'),
        ('alignment', '--images', '1.5', 'a whole number of at least 1'),
        ('distributions', '--temperature', '0', 'a finite number above 0'),
        ('gradients', '--steepness', 'inf', 'a finite number above 0'),
        ('gradients', '--temperature', 'hot', 'a finite number above 0'),
    ],
)
def test_options_are_checked_at_once(name, option, value, rule, capsys):
    with pytest.raises(SystemExit) as end:
        main(['figure', name, 'run', option, value])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert f'argument {option}: must be {rule}, got {value!r}' in error


def test_students_of_two_teachers_are_refused(tmp_path, capsys):
    _, first = classifier_folders(tmp_path)
    second = shutil.copytree(first, tmp_path / 'second')
    (config,) = second.glob('*/vis_data/config.py')
    other = tmp_path / 'other.pth'
    content = torch.load(tmp_path / 'weights.pth', weights_only=True)
    head = content['state_dict']['head.fc.bias']
    head += 10 * torch.arange(len(head))
    torch.save(content, other)
    text = config.read_text()
    config.write_text(text.replace(str(tmp_path / 'weights.pth'), str(other)))
    error = refused(capsys, 'alignment', first, second)
    assert 'distilled and second have unlike teachers' in error


def test_a_figure_is_known_by_its_file():
    assert type(FIGURES['alignment']) is Alignment
    assert Alignment.name == 'alignment' and 'base' not in FIGURES


@pytest.mark.parametrize('name', FIGURES)
def test_the_page_says_how_to_read_each_and_shows_it(name):
    page = (ROOT / 'docs' / 'en' / 'figures.md').read_text()
    _, heading, rest = page.partition(f'\n## {name}\n')
    section = rest.partition('\n## ')[0]
    assert heading and f'mmrkkd figure {name} ' in section
    words = ' '.join(section.split())
    assert FIGURES[name].reading in words and FIGURES[name].source in words
    picture = f'images/figures/{name}.png'
    assert f']({picture})' in section
    assert 0 < (ROOT / 'docs' / 'en' / picture).stat().st_size < 120_000
