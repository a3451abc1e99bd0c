"""mmrkkd report: what the page holds, and what is refused."""

import html
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from made_up_runs import by_hand, classifier_folders, demo_folder
from small_runs import CLASSES, random_weights

from mmrkkd.commands.program import main
from mmrkkd.commands.report import report
from mmrkkd.datasets import CLASSES as SHAPES
from mmrkkd.distillers.model_config import plain_model
from mmrkkd.report import page as page_module
from mmrkkd.report.measurements import AP
from mmrkkd.report.runs import check_alike, find_runs, teacher_label

HELD_OUT = 24


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """As the demo leaves it."""
    return demo_folder(tmp_path_factory.mktemp('runs') / 'made', images=24)


@pytest.fixture(scope='module')
def page(folder, tmp_path_factory):
    """The text of its page."""
    path = tmp_path_factory.mktemp('page') / 'deep' / 'report.html'
    report([folder], path, images=5, samples=20)
    return path.read_text()


def data_of(text):
    """What the scripts of a page draw."""
    return json.loads(
        re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]
    )


def test_the_page_needs_no_network(page):
    assert "default-src 'none'" in page
    head = page.partition('<script')[0]
    assert 'http://' not in head and 'https://' not in head
    assert not re.search(r'<(script|link|img|iframe)[^>]+(src|href)=', page)
    assert len(page) < 10 * 2**20


def test_teacher_and_baseline_stand_first(page):
    assert list(data_of(page)['runs']) == ['teacher', 'student', 'kd', 'rkkd']


def test_the_summary_gives_the_difference_with_its_intervals(folder, page):
    scores = {
        (run.label, run.seed): 100 * run.record['last']
        for run in find_runs([folder])[0]
    }
    first, second = (
        scores['rkkd', seed] - scores['student', seed] for seed in (0, 1)
    )
    # Student's t of one degree of freedom at 97.5 % is 12.706, and the
    # standard error of two values is half their difference.
    mean, half = (first + second) / 2, 12.7062 * abs(first - second) / 2
    said = re.search(
        r'rkkd minus student: (\S+) AP, (\S+) to (\S+) over 2 seeds, '
        r'(\S+) to (\S+) over samples of the 24 images \(95 %\): (.+)\.</p>',
        page,
    )
    numbers = [float(said[index]) for index in range(1, 4)]
    assert numbers == pytest.approx([mean, mean - half, mean + half], abs=0.01)
    low, high = float(said[4]), float(said[5])
    shown = min(low, mean - half) > 0 or max(high, mean + half) < 0
    assert said[6] == (
        'shown by these 2 seeds'
        if shown
        else 'an interval holds 0, so no difference is shown'
    )


def test_every_number_of_the_table_is_the_record_s(folder, page):
    record = {run.title: run.record for run in find_runs([folder])[0]}
    row = re.search(r'<th scope="row">teacher</th>(.*?)</tr>', page)[1]
    cells = re.findall(r'<td[^>]*>(.*?)</td>', row)
    last = 100 * record['teacher, seed 0']['last']
    assert cells[:2] == ['1', f'{last:.2f}']


def test_curves_are_means_over_the_seeds(folder, page):
    runs = [run for run in find_runs([folder])[0] if run.label == 'kd']
    final = [run.log[7]['loss_kd'] for run in runs]
    panel = next(
        panel
        for panel in data_of(page)['curves']
        if panel['title'] == 'loss_kd'
    )
    assert [line[0] for line in panel['lines']] == ['kd', 'rkkd']
    _, times, means, least, most = panel['lines'][0]
    assert times[-1] == 8
    assert (means[-1], least[-1], most[-1]) == pytest.approx(
        (np.mean(final), min(final), max(final)), rel=1e-4
    )


def test_the_gallery_holds_the_most_disputed_images(page):
    gallery = data_of(page)['gallery']
    assert len(gallery['entries']) == 5
    assert gallery['models'] == ['teacher', 'student', 'kd', 'rkkd']

    def disputed(entry):
        right = [
            {
                row[6]
                for row in rows
                if row[5] >= 0.3
                and row[6] >= 0
                and entry['objects'][row[6]][4] == row[4]
            }
            for rows in entry['found'].values()
        ]
        return len(set.union(*right) - set.intersection(*right))

    counts = [disputed(entry) for entry in gallery['entries']]
    assert counts == sorted(counts, reverse=True) and counts[0] > 0
    for entry in gallery['entries']:
        assert entry['jpeg'].startswith('data:image/jpeg;base64,')
        assert (entry['width'], entry['height']) == (128, 128)


def test_classes_and_confusions_of_all_models(page):
    assert 'AP class by class' in page
    classes = data_of(page)['classes']
    assert len(classes['names']) == 24
    assert set(classes['values']) == {'teacher', 'student', 'kd', 'rkkd'}
    assert 'Confusions on which the models differ most' in page


def test_settings_are_the_config_s(folder, page):
    text = (folder / 'rkkd' / 'seed0' / 'cell_config.py').read_text()
    assert text in html.unescape(page)
    assert 'mmrkkd.RankKDLoss' in page


def test_the_command_writes_beside_the_runs(folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / 'moved')
    options = ['--bootstrap', '0', '--images', '1', '--baseline', 'kd']
    assert main(['report', str(copy), '--files', *options]) == 0
    assert f'Report: {copy / "report.html"}' in capsys.readouterr().out
    text = (copy / 'report.html').read_text()
    assert 'student minus kd' in text and 'rkkd minus kd' in text
    drawn = {path.name for path in (copy / 'report_files').iterdir()}
    charts = {
        f'{name}.{kind}'
        for name in (
            'validation',
            'losses',
            'agreement',
            'classes',
            'differences',
        )
        for kind in ('png', 'svg')
    }
    assert drawn == charts


def test_a_moved_folder_still_knows_its_teacher(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / 'moved')
    runs, _ = find_runs([copy])
    assert teacher_label(runs) == 'teacher'
    for run in runs:
        (run.folder / 'last_checkpoint').write_text('/gone/iter_8.pth')
        assert run.checkpoint == run.folder / 'iter_8.pth'


def test_a_copied_folder_is_scored_by_its_own_weights(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / 'copied')
    # Each last_checkpoint still names the original's, which is there.
    for run in find_runs([copy])[0]:
        assert run.checkpoint == run.folder / 'iter_8.pth'
    (copy / 'kd' / 'seed0' / 'iter_8.pth').unlink()
    found = {run.title: run.checkpoint for run in find_runs([copy])[0]}
    assert found['kd, seed 0'] == folder / 'kd' / 'seed0' / 'iter_8.pth'


def test_the_config_of_a_test_in_the_same_folder_is_not_the_run_s(tmp_path):
    run = by_hand(tmp_path, 'run', model=dict(teacher=TEACHER))
    tested = run / '20260102_000000' / 'vis_data'
    tested.mkdir(parents=True)
    (tested / 'config.py').write_text("model = dict(type='ImageClassifier')")
    assert find_runs([run])[0][0].distils
    # A validation alone logs as a training does.
    (tested / 'scalars.json').write_text('{"accuracy/top1": 0.1, "step": 0}')
    (found,) = find_runs([run])[0]
    assert found.distils and found.record['last'] == 0.5


def test_the_config_of_the_last_training_is_the_run_s(tmp_path):
    run = by_hand(tmp_path, 'run')
    again = shutil.copytree(run / '20260101_000000', run / '20260102_000000')
    config = again / 'vis_data' / 'config.py'
    config.write_text("model = dict(type='Second')")
    assert find_runs([run])[0][0].config.model.type == 'Second'
    # Ended before its first entry, it has trained nothing.
    (again / 'vis_data' / 'scalars.json').unlink()
    assert find_runs([run])[0][0].config.model.type == 'ImageClassifier'


def test_a_student_is_no_teacher_for_bearing_its_folder_s_name(tmp_path):
    for name in ('one', 'two'):
        teacher = dict(TEACHER, checkpoint='/elsewhere/seed0/teacher.pth')
        run = by_hand(tmp_path / name, 'seed0', model=dict(teacher=teacher))
        (run / 'teacher.pth').touch()
    runs, _ = find_runs([tmp_path])
    assert len(runs) == 2 and teacher_label(runs) is None


def test_a_cell_without_its_log_has_its_recorded_score(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / 'moved')
    for log in (copy / 'kd').glob('*/*/vis_data/scalars.json'):
        log.unlink()
    before, after = (
        [run.record['last'] for run in find_runs([root])[0]]
        for root in (folder, copy)
    )
    assert after == before
    text = report([copy], images=0, samples=0).read_text()
    assert 'kd minus student: ' in text
    lines = {
        line[0] for each in data_of(text)['curves'] for line in each['lines']
    }
    assert lines == {'teacher', 'student', 'rkkd'}


def test_a_loss_that_is_not_finite_is_a_gap(tmp_path):
    run = by_hand(tmp_path, 'run')
    log = next(run.glob('*/vis_data/scalars.json'))
    step = '{"loss": NaN, "iter": 2, "step": 2, "epoch": 1}'
    log.write_text(f'{log.read_text()}\n{step}')
    text = report([run]).read_text()
    losses = [p for p in data_of(text)['curves'] if p['title'] == 'Total loss']
    assert losses[0]['lines'] == [['run', [1, 2], *[[1, None]] * 3]]


GARBLED = ['', '\n', '\0' * 300, '{"loss": 1', '[1, 2]\n3\n']


@pytest.mark.parametrize('text', GARBLED)
def test_a_log_that_cannot_be_read_is_an_error(text, tmp_path, capsys):
    run = by_hand(tmp_path, 'run')
    log = next(run.glob('*/vis_data/scalars.json'))
    log.write_text(text)
    error = refused(capsys, run)
    assert f'no log can be read: {log} holds no entry that can be' in error
    assert not (run / 'report.html').exists()


@pytest.mark.parametrize('text', GARBLED)
def test_beside_others_it_is_a_gap_that_names_the_file(text, tmp_path):
    run = by_hand(tmp_path, 'run')
    fine = by_hand(tmp_path, 'fine')
    log = next(run.glob('*/vis_data/scalars.json'))
    log.write_text(text)
    page = report([fine, run], tmp_path / 'page.html').read_text()
    assert (
        f'<p class="warning">Left out, as it cannot be read: {log} holds no '
        'entry that can be read.</p>'
    ) in page


def test_lines_that_cannot_be_read_are_counted(tmp_path):
    run = by_hand(tmp_path, 'run')
    log = next(run.glob('*/vis_data/scalars.json'))
    lines = log.read_text().splitlines()
    log.write_bytes('\n'.join([lines[0], '\0\0', lines[1]]).encode() + b'\xff')
    text = report([run]).read_text()
    assert f'{log}: 1 of 3 lines cannot be read.' in text
    # The last line of a run that was cut off is no fault.
    log.write_text('\n'.join([*lines, '{"loss": 1.']))
    assert 'cannot be read' not in report([run]).read_text()


def test_unfinished_cells_are_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / 'moved')
    (copy / 'kd' / 'seed1' / 'result.json').rename(
        copy / 'kd' / 'seed1' / 'cell.json'
    )
    text = report([copy], images=0, samples=0).read_text()
    assert 'Not finished, and left out: kd/seed1' in text


def test_without_images_the_gallery_is_a_sentence(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / 'moved')
    options = {'data_root': f'{copy}/data/'}
    shutil.rmtree(copy / 'data' / 'val')
    path = report([copy], samples=0, cfg_options=options)
    text = path.read_text()
    place = html.escape(f'{copy}/data/val/')
    assert re.search(
        f'The images are left out: {place}[^ ]+ is not there. Make this page '
        'again with --cfg-options data_root=PATH',
        text,
    )
    assert 'Errno' not in text.partition('<script')[0]
    assert data_of(text)['gallery'] is None
    assert 'Confusions on which' in text
    shutil.rmtree(copy / 'data')
    text = report([copy], samples=0, cfg_options=options).read_text()
    assert 'the annotations of the validation are not on this' in text


def test_trainings_by_hand_are_called_by_their_folders(tmp_path):
    folders = [
        by_hand(tmp_path, 'alone', 1, 50.0),
        by_hand(tmp_path, 'a<b>', 1, 52.0, model=dict(teacher=TEACHER)),
    ]
    text = report(folders, tmp_path / 'page.html').read_text()
    assert (
        'a&lt;b&gt; minus alone: +2.00 % accuracy: one run each, so nothing '
        'can be said about chance.'
    ) in text
    assert 'the runs keep no predictions. With --scores' in text
    assert 'a<b>' not in text.partition('<script')[0]


TEACHER = dict(config='teacher.py', checkpoint='teacher.pth')


def test_seeds_that_are_not_common_are_no_pair(tmp_path):
    folders = [by_hand(tmp_path, 'one', 1), by_hand(tmp_path, 'two', 2)]
    text = report(folders, tmp_path / 'page.html').read_text()
    assert 'two minus one: no seed is common to both' in text


def test_folders_of_one_name_are_told_apart(tmp_path):
    folders = [by_hand(tmp_path / name, 'run') for name in ('new', 'old')]
    runs, _ = find_runs(folders)
    assert [run.label for run in runs] == ['new/run', 'old/run']
    with pytest.raises(ValueError, match="both called 'new/run'"):
        find_runs([folders[0], folders[0]])


def refused(capsys, *argv):
    """The error of a command that wrote nothing."""
    assert main(['report', *map(str, argv)]) == 1
    return capsys.readouterr().err


def test_bad_folders_are_refused_and_nothing_is_written(tmp_path, capsys):
    out = tmp_path / 'page.html'
    (tmp_path / 'empty').mkdir()
    without = by_hand(tmp_path, 'without')
    next(without.glob('*/vis_data/config.py')).unlink()
    other = by_hand(
        tmp_path,
        'other',
        val_dataloader=dict(dataset=dict(type='X', data_root='elsewhere')),
    )
    fine = by_hand(tmp_path, 'fine')
    for arguments, message in (
        (['nowhere'], 'RUN nowhere is no folder; give the work directory'),
        ([tmp_path / 'empty'], 'holds no run: there is neither a log'),
        ([without], 'has logs, but no config beside them'),
        ([fine, other], 'validated on unlike data: annotations'),
        (
            [fine, '--baseline', 'kd'],
            "--baseline must be one of fine, got 'kd",
        ),
        ([fine, '--scores'], 'none of the runs fine has one; give a distill'),
    ):
        error = refused(capsys, *arguments, '--out', out)
        assert error.startswith('mmrkkd report: ') and message in error
        assert not list(tmp_path.glob('page.html*'))


def cell(folder, record, config="model = dict(type='X')"):
    """A finished cell of an ablation without a log."""
    folder.mkdir(parents=True)
    (folder / 'result.json').write_text(record)
    (folder / 'cell_config.py').write_text(config)
    return folder


RECORD = json.dumps(
    dict(label='kd', seed=0, metric='accuracy/top1', last=50.0, best=50.0)
)


@pytest.mark.parametrize(
    ('record', 'reason'),
    [
        ('{"lab', 'JSONDecodeError'),
        ('{"a": 1}', "KeyError: 'label'"),
        ('{"label": "kd"}', "KeyError: 'seed'"),
        ('[1]', 'TypeError'),
    ],
)
def test_a_broken_record_is_named(record, reason, tmp_path, capsys):
    folder = cell(tmp_path / 'kd', record)
    error = refused(capsys, folder)
    assert f'{folder}/result.json is no record of a finished cell' in error
    assert reason in error and 'put a copy in its place' in error


@pytest.mark.parametrize(
    ('config', 'reason'),
    [('model = dict(', 'is no config'), ('', 'names no model')],
)
def test_a_broken_config_is_named(config, reason, tmp_path, capsys):
    folder = cell(tmp_path / 'kd', RECORD, config)
    error = refused(capsys, folder)
    assert f'{folder}/cell_config.py {reason}' in error


def test_a_record_of_scores_alone_is_enough(tmp_path):
    folder = cell(tmp_path / 'kd', RECORD)
    assert '<td class="number">50.00</td>' in report([folder]).read_text()


def test_runs_with_and_without_a_seed_may_share_a_label(tmp_path):
    folders = [
        by_hand(tmp_path / 'without', 'run', None, 50.0),
        by_hand(tmp_path / 'with', 'run', 0, 52.0),
    ]
    text = report(folders, tmp_path / 'page.html').read_text()
    assert '<td class="number">51.00 ± 1.41</td>' in text


def test_a_data_set_may_have_several_annotation_files(tmp_path):
    def run(name, *files):
        dataset = dict(type='X', data_root='data', ann_file=list(files))
        return by_hand(tmp_path, name, val_dataloader=dict(dataset=dataset))

    folders = [run('one', 'a.json', 'b.json'), run('two', 'a.json', 'b.json')]
    runs, _ = find_runs(folders)
    assert runs[0].data['annotations'] == [('data/a.json', 'data/b.json')]
    check_alike(runs)
    runs, _ = find_runs([folders[0], run('three', 'a.json', 'c.json')])
    with pytest.raises(ValueError, match='unlike data: annotations'):
        check_alike(runs)


@pytest.mark.parametrize(
    'content', [b'', b'no archive', b'PK\x03\x04half', 0.5]
)
def test_broken_predictions_are_named(content, folder, tmp_path, capsys):
    run = copy_of(folder, tmp_path)
    kept = run / 'predictions.npz'
    broken(kept, content)
    for options in ([], ['--images', 0]):
        error = refused(capsys, run, *options)
        assert f'{kept} cannot be read' in error
        assert 'or remove it, and the run is shown without' in error
    kept.unlink()
    assert main(['report', str(run)]) == 0


def copy_of(folder, tmp_path):
    """A run of the demo."""
    return shutil.copytree(folder / 'kd' / 'seed0', tmp_path / 'kd' / 'seed0')


def broken(path, content):
    """Writes a file that is no archive, or this share of what it was."""
    if isinstance(content, float):
        whole = path.read_bytes()
        content = whole[: int(content * len(whole))]
    path.write_bytes(content)


@pytest.mark.parametrize('options', [[], ['--images', 0]])
def test_predictions_on_other_images_are_refused(
    options, folder, tmp_path, capsys
):
    run = copy_of(folder, tmp_path)
    data = shutil.copytree(folder / 'data', tmp_path / 'data')
    path = data / 'annotations' / 'val.json'
    content = json.loads(path.read_text())
    lost = {image['id'] for image in content['images'][:3]}
    for name, key in (('images', 'id'), ('annotations', 'image_id')):
        content[name] = [e for e in content[name] if e[key] not in lost]
    path.write_text(json.dumps(content))
    options = [*options, '--cfg-options', f'data_root={data}/']
    error = refused(capsys, run, *options)
    assert (
        'must be on the 21 images of the annotation file, got 3 oth' in error
    )
    path.write_text('{"images": [')
    error = refused(capsys, run, *options)
    assert f'{path} is no annotation file in JSON' in error


def test_a_student_that_has_diverged_has_no_numbers(classifiers, tmp_path):
    path = classifiers[1] / 'student.pth'
    content = torch.load(path, weights_only=False)
    for value in content['state_dict'].values():
        if value.is_floating_point():
            value.fill_(math.nan)
    torch.save(content, path)
    text = report(
        classifiers, tmp_path / 'page.html', scores=12, images=4
    ).read_text()
    for entry in data_of(text)['gallery']['entries']:
        assert entry['found']['distilled'] == [[0, None, 0]]
        (row,) = entry['ranks']
        assert row['lists']['distilled']['tau'] is None
        said = [each[2] for each in row['lists']['distilled']['classes']]
        assert said == [None] * 3
    # No tau; the first class of NaN is class 0; every pair is swapped.
    row = re.findall(r'<th scope="row">distilled</th>(.*?)</tr>', text)[-1]
    cells = re.findall(r'<td[^>]*>(.*?)</td>', row)
    assert (cells[0], cells[2]) == ('-', '100.0')


@pytest.mark.parametrize('name', ['README.md', 'folder.html'])
def test_a_page_replaces_nothing_but_a_page(tmp_path, capsys, name):
    run = by_hand(tmp_path, 'fine')
    (tmp_path / 'folder.html').mkdir()
    (tmp_path / 'README.md').write_text('mine')
    error = refused(capsys, run, '--out', tmp_path / name)
    assert 'must be a file that ends with .html' in error
    assert (tmp_path / 'README.md').read_text() == 'mine'


def test_a_missing_package_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page_module, 'find_spec', lambda name: None)
    error = refused(capsys, by_hand(tmp_path, 'fine'))
    assert 'needs the package plotly' in error
    assert 'pip install plotly' in error
    assert not (tmp_path / 'fine' / 'report.html').exists()


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('--images', -1),
        ('--images', 201),
        ('--scores', -1),
        ('--bootstrap', 1),
    ],
)
def test_numbers_out_of_range_are_refused(option, value, capsys):
    with pytest.raises(SystemExit) as end:
        main(['report', 'run', option, str(value)])
    assert end.value.code == 2
    assert f'{option} must be ' in capsys.readouterr().err


@pytest.fixture
def classifiers(tmp_path):
    """A student alone and a distilled one, of 12 images."""
    return classifier_folders(tmp_path)


def test_scores_rank_the_classes_of_classifiers(classifiers, tmp_path):
    text = report(
        classifiers, tmp_path / 'page.html', scores=12, images=4
    ).read_text()
    gallery = data_of(text)['gallery']
    assert gallery['names'] == list(CLASSES) and not gallery['boxes']
    assert gallery['models'] == ['teacher', 'alone', 'distilled']
    for entry in gallery['entries']:
        (row,) = entry['ranks']
        assert row['object'] == entry['objects'][0]
        # The same weights everywhere: one order, no dispute.
        for ranked in row['lists'].values():
            assert ranked['tau'] == 1
            places = [each[3] for each in ranked['classes']]
            assert (
                places == [each[4] for each in ranked['classes']] == [1, 2, 3]
            )
            assert sum(each[1] for each in ranked['classes']) == pytest.approx(
                1, abs=0.01
            )
    assert 'Accuracy class by class' in text
    assert 'On 12 images, evenly spaced' in text
    counts = re.findall(
        r'<th scope="row">(\w+)</th><td class="number">4', text
    )
    assert sorted(counts) == sorted(CLASSES)


def test_scores_need_the_weights(classifiers, tmp_path, capsys):
    (classifiers[1] / 'student.pth').unlink()
    out = tmp_path / 'page.html'
    error = refused(capsys, *classifiers, '--scores', 3, '--out', out)
    assert '--scores needs the weights of distilled' in error
    assert not out.exists()


def test_the_metric_of_the_made_up_runs_is_the_detector_s(folder):
    assert {run.metric for run in find_runs([folder])[0]} == {AP}


@pytest.mark.slow
@pytest.mark.parametrize('keeps_predictions', [True, False])
def test_scores_rank_the_classes_of_detectors_boxes(
    keeps_predictions, folder, tmp_path
):
    copy = shutil.copytree(folder, tmp_path / 'made')
    runs, _ = find_runs([copy])
    for run in runs:
        if run.seed == 1 or run.label == 'rkkd':
            shutil.rmtree(run.folder)
            continue
        model = plain_model(run.config)
        random_weights(model, run.folder / 'iter_8.pth', 'mmdet', SHAPES)
        (run.folder / 'last_checkpoint').write_text('/gone/iter_8.pth')
        if not keeps_predictions:
            (run.folder / 'predictions.npz').unlink()
    # The runs' configs name the folder that they were trained in.
    shutil.move(folder / 'teacher', tmp_path / 'aside')
    try:
        text = report([copy], samples=0, scores=3, images=2).read_text()
    finally:
        shutil.move(tmp_path / 'aside', folder / 'teacher')
    gallery = data_of(text)['gallery']
    assert gallery['models'] == ['teacher', 'student', 'kd']
    for entry in gallery['entries']:
        boxes = [row['object'] for row in entry['ranks']]
        assert len(boxes) == len(entry['objects']) > 0
        for box, true in zip(boxes, entry['objects']):
            assert box == pytest.approx(true, abs=0.2)
        for row in entry['ranks']:
            assert list(row['lists']) == ['student', 'kd']
    assert 'order of the classes against the teacher' in text
    if not keeps_predictions:
        assert 'On 3 images, the first seed' in text
