"""The evidence on photos: who waits for whom, and nothing measured is lost."""

import json
import os
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmrkkd.backbones import EfficientNetLite

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

from dataset_tools.hold_out import hold_out  # noqa: E402
from experiments import ExperimentError, jobs  # noqa: E402
from experiments.detection import write_arrays  # noqa: E402
from gpu import (  # noqa: E402
    arms,
    comparisons,
    evidence,
    evidence_report,
    mps,
    pack,
    probe,
    schedule,
)

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

# Towards the schedule it behaves as tools/train.py does, and needs no second:
# a validation at half time and one at the end.
TRAIN = """
import json, os, sys, time
from pathlib import Path
from mmengine.config import Config
config = Config.fromfile(sys.argv[1])
folder = Path(config.work_dir)
teacher = config.model.get('teacher')
name = folder.parent.name
with open(os.environ['ORDER'], 'a') as file:
    file.write(name + '\\n')
if name == os.environ.get('FAILS'):
    raise SystemExit('no memory')
if teacher:
    assert Path(teacher.checkpoint).is_file()
epochs = config.train_cfg.max_epochs
assert config.param_scheduler[1].T_max == epochs
log = folder / '2026_1' / 'vis_data'
log.mkdir(parents=True)
val = config.val_dataloader.dataset
truth = json.load(open(config.val_evaluator.ann_file))
boxes = [dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=.9)
         for a in truth['annotations']][: 4 if teacher else 2]
for epoch in (epochs // 2, epochs):
    print(f'Epoch(train) [{epoch}][20/20]  loss: 0.5', flush=True)
    with open(log / 'scalars.json', 'a') as file:
        file.write(json.dumps(dict(
            loss=.5, time=.25, iter=20 * epoch, epoch=epoch, step=epoch))
            + '\\n')
        file.write(json.dumps({
            'coco/bbox_mAP': len(boxes) / 10 * epoch / epochs,
            'coco/bbox_mAP_50': .5, 'step': epoch}) + '\\n')
    path = config.val_evaluator.outfile_prefix + '.bbox.json'
    Path(path).write_text(json.dumps(boxes))
    if epoch < epochs and name == os.environ.get('HANGS'):
        time.sleep(60)
path = folder / f'epoch_{epochs}.pth'
path.touch()
if name == 'teacher':
    import torch
    torch.save(dict(state_dict={'w': torch.ones(2, 2)}, meta={}), path)
(folder / 'last_checkpoint').write_text(str(path))
"""


def annotations(images):
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', width=99, height=99)
            for i in range(1, images + 1)
        ],
        annotations=[
            dict(
                id=i,
                image_id=i,
                category_id=1,
                bbox=[10, 10, 20, 20],
                area=400,
                iscrowd=0,
            )
            for i in range(1, images + 1)
        ],
        categories=[dict(id=1, name='aeroplane')],
    )


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of 20 photos, and pretended trainings."""
    (tmp_path / 'train.py').write_text(TRAIN)
    monkeypatch.setattr(jobs, 'TRAIN', tmp_path / 'train.py')
    monkeypatch.setattr(schedule, 'SECONDS_BETWEEN_LOOKS', 0.02)
    monkeypatch.setattr(schedule, 'IMPORTED', ())
    monkeypatch.setenv('ORDER', str(tmp_path / 'order.txt'))
    # evidence.py sets them for its processes.
    for name in (comparisons.WEIGHTS_VARIABLE, 'NUM_CLASSES'):
        monkeypatch.setenv(name, '1')
    root = tmp_path / 'data' / 'voc20'
    (root / 'annotations').mkdir(parents=True)
    for part, count in (('train', 20), ('val', 6)):
        path = root / 'annotations' / f'instances_{part}.json'
        path.write_text(json.dumps(annotations(count)))
        (root / part).mkdir()
        (root / part / '.DS_Store').touch()
        for number in range(count):
            (root / part / f'{number}.jpg').touch()
    return root.parent


def run(data, *arguments, methods=('alone', 'kd'), minutes=5):
    out = data.parent / 'out'
    command = ['--data', data, '--out', out, '--work-dir', data.parent / 'w']
    command += ['--minutes', minutes, '--epochs', 4, '--bootstrap', 20]
    command += ['--arms', *methods, '--jobs', 2, *arguments]
    code = evidence.main(list(map(str, command)))
    text = (out / 'photos.md').read_text()
    return code, text, json.loads((out / 'photos.json').read_text())


def order(data):
    return (data.parent / 'order.txt').read_text().split()


@pytest.mark.slow
def test_teacher_and_students_alone_come_first(data):
    methods = ('kd', 'alone', 'k9=rkkd:steepness=9.0')
    code, text, content = run(data, '--seeds', 0, methods=methods)
    assert code == 0
    assert set(order(data)[:2]) == {'teacher', 'alone'}
    assert set(order(data)[2:]) == {'kd', 'k9'}
    rows = {row['label']: row for row in content['rows']}
    assert rows['kd']['last']['mean'] == 0.4
    # 40 % and 20 %, with one seed; the teacher is no row of the table.
    assert rows['kd']['difference']['by_seed'] == {'0': pytest.approx(0.2)}
    assert set(rows) == {'kd', 'alone', 'k9'}
    assert rows['kd']['over_images']['images'] == 6
    assert '| minus kd |' in text and 'Teacher: AP 20.0, AP50 50.0' in text
    assert 'teacher-0 250' in text
    out = data.parent / 'out'
    with np.load(out / 'photos_predictions.npz') as found:
        assert found['kd-0-bbox'].shape == (4, 4)
    teacher = torch.load(out / 'photos_teacher.pth', weights_only=True)
    assert teacher['state_dict']['w'].dtype == torch.float16
    assert len(list(out.iterdir())) <= 8


@pytest.mark.slow
def test_what_the_deadline_cuts_off_keeps_its_last_validation(
    data, monkeypatch
):
    monkeypatch.setenv('HANGS', 'kd')
    monkeypatch.setattr(evidence, 'SECONDS_TO_REPORT', 0)
    start = time.monotonic()
    code, text, content = run(data, '--seeds', 0, minutes=0.25)
    assert code == 1 and time.monotonic() - start < 40
    (cut,) = content['unfinished']
    # Half of the epochs: half of 40 %.
    assert (cut['title'], cut['state']) == ('kd, seed 0', 'cut off')
    assert cut['last'] == 0.2 and cut['epochs'] == 2
    assert 'cut off | 2.0 of 4 |         epoch 2 | AP 20.0, AP50 50.0' in text
    assert [row['label'] for row in content['rows'] if row['seeds']] == [
        'alone'
    ]


@pytest.mark.slow
def test_students_of_a_teacher_that_failed_are_told(data, monkeypatch):
    monkeypatch.setenv('FAILS', 'teacher')
    code, text, content = run(data, '--seeds', 0)
    assert code == 1 and sorted(order(data)) == ['alone', 'teacher']
    assert 'FAILED: kd, seed 0: its teacher failed' in text
    assert 'no memory' in (data.parent / 'out/evidence.log').read_text()
    assert len(content['results']) == 1


@pytest.mark.slow
def test_choices_do_not_look_at_the_validation_photos(data):
    arguments = ['--stage', 'choose', '--seeds', '0']
    arguments += ['--cfg-options', 'optim_wrapper.optimizer.lr=0.5']
    assert run(data, *arguments, methods=('alone',))[0] == 0
    log = (data.parent / 'out/evidence.log').read_text()
    # 16 photos, 8 a step.
    assert '2 trainings, 4 epochs of 2 steps' in log
    config = Config.fromfile(
        data.parent / 'w/photos/alone/seed0/cell_config.py'
    )
    assert config.optim_wrapper.optimizer.lr == 0.5
    for name in ('train', 'val'):
        dataset = config[f'{name}_dataloader'].dataset
        assert dataset.data_prefix.img == 'train/'
        assert Path(dataset.ann_file).is_absolute()
    parts = data.parent / 'w/photos/parts'
    assert config.val_evaluator.ann_file == str(parts / 'held_out.json')
    images = [
        {image['id'] for image in json.loads(path.read_text())['images']}
        for path in (parts / 'fit.json', parts / 'held_out.json')
    ]
    assert [len(part) for part in images] == [16, 4]
    assert images[0] | images[1] == set(range(1, 21))


def test_everything_that_is_kept_is_written_whole_or_not(data, monkeypatch):
    work, out = data.parent / 'w', data.parent / 'out'
    comparison = comparisons.photos(
        data, work, 'final', 'faster-rcnn', 'mv2', ['alone', 'kd'], [0], {}
    )
    comparison.plan(4, 4)
    out.mkdir()
    names = ('last', 'best', 'seconds', 'processor_seconds')
    for task in comparison.tasks:
        task.state, folder = schedule.DONE, task.cell.folder
        folder.mkdir(parents=True)
        result = dict.fromkeys(names, 0.5)
        result.update(label=task.cell.method.label, seed=0, scores={})
        result.update(agreement={}, gradient_shares={})
        (folder / 'result.json').write_text(json.dumps(result))
        write_arrays(folder / 'predictions.npz', score=np.ones(3))
        torch.save(dict(state_dict={'w': torch.ones(2)}), folder / 'x.pth')
        (folder / 'last_checkpoint').write_text(str(folder / 'x.pth'))
    replaced, replace = set(), os.replace

    def note(source, target):
        replaced.add(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, 'replace', note)
    evidence_report.write_tables(comparison, out, 'command')
    evidence_report.keep_files(comparison, out)
    written = {path.name for path in out.iterdir()}
    assert written == {
        'photos.json',
        'photos.md',
        'photos.png',
        'photos_differences.png',
        'photos_predictions.npz',
        'photos_teacher.pth',
    }
    assert replaced >= written
    text = (out / 'photos.md').read_text()
    assert '(photos.png)' in text and '(photos_differences.png)' in text
    with np.load(out / 'photos_predictions.npz') as found:
        assert found['alone-0-score'].tolist() == [1, 1, 1]


def test_half_an_archive_is_not_taken_for_the_images(data, monkeypatch):
    folder, work = data / 'tin32a' / 'train', data.parent / 'w'
    folder.mkdir(parents=True)
    for name in 'ab':
        (folder / name).write_text(name)
    with tarfile.open(data / 'tin32a.tar.gz', 'w:gz') as archive:
        archive.add(data / 'tin32a', 'tin32a')
    (data / 'tin32a').rename(data / 'elsewhere')

    def killed(archive, folder, **options):
        archive.extract('tin32a/train/a', folder, filter='data')
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, 'extractall', killed)
    with pytest.raises(KeyboardInterrupt):
        comparisons.classes(data, work, ['alone'], [0], {})
    monkeypatch.undo()
    made = comparisons.classes(data, work, ['alone'], [0], {})
    root = Path(made.options['data_root'])
    assert [path.name for path in work.iterdir()] == ['tin32a']
    assert sorted(p.name for p in (root / 'train').iterdir()) == ['a', 'b']


def test_waiting_for_the_teacher_is_no_training(tmp_path, monkeypatch):
    job = schedule.TrainingJob.__new__(schedule.TrainingJob)
    job.awaited, job.stage, job.state = tmp_path / 'x.pth', 'training', {}
    job.noted = 0.0
    # Nothing is added up, and the time that has passed is forgotten.
    job._note_time(always=True)
    assert time.time() - job.noted < 60 and job.state == {}
    job.awaited.touch()
    noted = []
    monkeypatch.setattr(jobs.Job, '_note_time', lambda *a: noted.append(a[1]))
    job._note_time(always=True)
    assert noted == [True]


def test_held_out_images_depend_on_their_names_alone():
    content = annotations(10)
    _, held = hold_out(content, 0.3)
    names = {image['file_name'] for image in held['images']}
    content['images'].reverse()
    fit, again = hold_out(content, 0.3)
    assert {image['file_name'] for image in again['images']} == names
    assert {a['image_id'] for a in fit['annotations']} == {
        image['id'] for image in fit['images']
    }
    for share in (0, 1, 0.01):
        with pytest.raises(ValueError, match='leave an image in each part'):
            hold_out(content, share)


def test_arms_that_are_not_there_are_refused():
    names = dict(alone='a.py', others='{}_faster-rcnn.py')
    with pytest.raises(ExperimentError, match="--arms must be.*got 'kd3'"):
        arms.methods_of(['kd3'], ROOT, names)
    with pytest.raises(ExperimentError, match='has no config kd_faster'):
        arms.methods_of(['kd'], ROOT, names)


def test_an_arm_of_an_unknown_method_is_told_the_known_ones(tmp_path):
    names = dict(alone='a.py', others='{}_faster-rcnn.py')
    for name in ('kd', 'dkd-rk', 'lra'):
        (tmp_path / f'{name}_faster-rcnn.py').touch()
    (tmp_path / 'kd_another.py').touch()
    with pytest.raises(
        ExperimentError,
        match=r"--arms: 'k8=nope:a=1' has no config nope_faster-rcnn.py; "
        r"METHOD must be of \['dkd-rk', 'kd', 'lra'\]$",
    ):
        arms.methods_of(['k8=nope:a=1'], tmp_path, names)


@pytest.mark.parametrize(
    ('stage', 'student'), [('choose', 'mv2'), ('final', 'lite0-s5')]
)
@pytest.mark.parametrize('detector', arms.DEFAULT_ARMS)
def test_every_arm_changes_what_is_there(data, detector, student, stage):
    known = {
        name: changes
        for name, (method, changes) in arms.ARMS.items()
        if not method
        or list(comparisons.PHOTOS.glob(f'{method}_{detector}_lite2-*.py'))
    }
    assert set(known) >= set(arms.DEFAULT_ARMS[detector][stage])
    comparison = comparisons.photos(
        data, data.parent / 'w', stage, detector, student, known, [0], {}
    )
    comparison.plan(12, 6)
    assert comparison.images == (16 if stage == 'choose' else 20)
    assert len(comparison.tasks) == len(known) + 1
    kinds = set()
    for task in comparison.tasks:
        config = task.cell.config
        student_of = config.model.get('student', config.model)
        kinds.add(student_of.type)
        if task is comparison.tasks[0]:
            continue
        assert config.train_cfg.max_epochs == 12
        for key in known[task.cell.method.label]:
            plain = Config.fromfile(task.cell.method.config)
            assert key in plain.model.losses
        if comparisons.distils(task.cell):
            assert task.after is comparison.tasks[0]
            assert config.model.teacher.checkpoint.endswith('epoch_6.pth')
    assert kinds == {dict(gfl='GFL').get(detector, 'FasterRCNN')}


def test_epochs_follow_from_the_pace():
    pace = probe.Pace(students=0.3, teacher=0.1, start=10)
    comparison = comparisons.Comparison(
        'photos', '', [], None, [0], '', 800, Path(), {}, steps=100
    )
    comparison.tasks = [None] * 5
    # Two phases of 10 s to start and 20 s to score: 240 s of 300, a tenth
    # in reserve, 216. An epoch of both takes 40 s.
    assert probe.epochs_that_fit(pace, comparison, 4, 300, 0) == 5
    # 6 of the teacher's take 60 s: 156 s for students of 30.
    assert probe.epochs_that_fit(pace, comparison, 4, 300, 6) == 5
    comparison.checkpoint, comparison.tasks = Path('x.pth'), [None] * 4
    # One phase: 243 s.
    assert probe.epochs_that_fit(pace, comparison, 4, 300, 0) == 8
    assert probe.epochs_that_fit(pace, comparison, 4, 20, 0) == 1


def test_students_that_do_not_fit_side_by_side_take_turns():
    pace = probe.Pace(students=0.1, teacher=0.1, start=20)
    comparison = SimpleNamespace(checkpoint=None, steps=100, tasks=[0] * 21)
    # The teacher and five rounds of four: 6 times 40 s to start and score,
    # 234 s for epochs of 10 s and 5 times 10 s.
    assert probe.epochs_that_fit(pace, comparison, 4, 500, 0) == 3
    # The last of them alone is one round more.
    comparison.tasks.append(0)
    assert probe.epochs_that_fit(pace, comparison, 4, 500, 0) == 2


def fake_service(tmp_path, monkeypatch, script):
    path = tmp_path / mps.CONTROL
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')


def test_without_the_service_everything_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with mps.multi_process_service(tmp_path / 'mps') as state:
        assert state == 'off: no nvidia-cuda-mps-control'
    monkeypatch.undo()
    fake_service(tmp_path, monkeypatch, 'exit 3')
    with mps.multi_process_service(tmp_path / 'mps') as state:
        assert state == 'off: nvidia-cuda-mps-control ended with code 3'
        assert mps.FOLDERS[0] not in os.environ
    fake_service(tmp_path, monkeypatch, 'exec sleep 20')
    monkeypatch.setattr(mps, 'SECONDS_TO_START', 0.1)
    with mps.multi_process_service(tmp_path / 'mps') as state:
        assert state.startswith('off: ') and 'timed out' in state


def test_the_service_ends_with_its_users(tmp_path, monkeypatch):
    told = tmp_path / 'told'
    fake_service(tmp_path, monkeypatch, f'echo "$1" >> {told}; cat >> {told}')
    monkeypatch.setattr(mps, 'TRIAL', '')
    with mps.multi_process_service(tmp_path / 'mps') as state:
        assert state == 'on'
        assert os.environ[mps.FOLDERS[0]] == str(tmp_path / 'mps' / 'pipe')
    assert told.read_text().split() == ['-d', 'quit']
    assert mps.FOLDERS[0] not in os.environ


def test_the_services_folders_are_absolute(tmp_path, monkeypatch):
    fake_service(tmp_path, monkeypatch, 'exit 0')
    monkeypatch.setattr(mps, 'TRIAL', '')
    monkeypatch.chdir(tmp_path)
    with mps.multi_process_service(Path('work') / 'mps') as state:
        assert state == 'on'
        folders = [os.environ[name] for name in mps.FOLDERS]
        assert folders == [f'{tmp_path}/work/mps/{n}' for n in ('pipe', 'log')]


def test_packed_backbone_is_the_part_in_use_at_half_the_size(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(comparisons.WEIGHTS_VARIABLE, str(tmp_path))
    torch.manual_seed(0)
    whole = EfficientNetLite(0)
    path = tmp_path / 'efficientnet-lite0-57934424.pth'
    torch.save(whole.state_dict(), path)
    config = comparisons.PHOTOS / pack.STUDENTS['lite0-s5']
    packed = pack.pack_weights(config, tmp_path / 'small')
    assert packed.stat().st_size < path.stat().st_size / 4
    backbone = EfficientNetLite(
        0,
        num_stages=5,
        init_cfg=dict(type='Pretrained', checkpoint=str(packed)),
    )
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        given = whole.state_dict()[key]
        torch.testing.assert_close(value, given, rtol=2**-11, atol=2**-25)
    del whole._bn0
    torch.save(whole.state_dict(), path)
    with pytest.raises(ValueError, match="lacks .*'_bn0.bias'"):
        pack.pack_weights(config, tmp_path / 'small')


@pytest.mark.parametrize(
    'change',
    [
        ('--epochs', 'x'),
        ('--jobs', '0'),
        ('--seeds', '0', '0'),
        ('--teacher', 'nowhere.pth'),
        ('--data', 'nowhere'),
    ],
)
def test_options_out_of_range_are_refused(change, capsys, tmp_path):
    given = ['--data', str(tmp_path), '--out', 'y', *change]
    with pytest.raises(SystemExit):
        evidence.parse_args('', given)
    assert f'{change[0]} must be' in capsys.readouterr().err


def test_a_pack_of_data_that_are_not_there_leaves_nothing(
    tmp_path, monkeypatch, capsys
):
    out = tmp_path / 'pack'
    monkeypatch.setattr(
        sys, 'argv', ['pack.py', '--data', str(tmp_path), '--out', str(out)]
    )
    with pytest.raises(SystemExit, match='2'):
        pack.main()
    assert f'{tmp_path}/voc20 does not exist' in capsys.readouterr().err
    assert not out.exists()


def test_a_probe_of_one_at_a_time_has_a_student(tmp_path, monkeypatch):
    started = []

    class Started:
        code = 0

        def stop(self):
            pass

    def start(task, folder, steps):
        started.append(task.cell)
        return Started()

    monkeypatch.setattr(probe, '_start', start)
    monkeypatch.setattr(probe, '_step_seconds', lambda folder: 0.25)
    monkeypatch.setattr(probe, 'distils', lambda cell: cell == 'student')
    tasks = [SimpleNamespace(cell=c) for c in ('teacher', 'student')]
    probe.measure_pace(SimpleNamespace(tasks=tasks), 1, tmp_path, print)
    assert started == ['teacher', 'student']


def test_an_interrupted_probe_leaves_no_process(monkeypatch):
    ended = []

    class Started:
        def stop(self):
            ended.append(self)

    def start(task, folder, steps):
        if folder.name == '1':
            raise KeyboardInterrupt
        return Started()

    monkeypatch.setattr(probe, '_start', start)
    monkeypatch.setattr(probe, 'distils', lambda cell: True)
    tasks = [SimpleNamespace(cell=None)] * 3
    with pytest.raises(KeyboardInterrupt):
        probe.measure_pace(
            SimpleNamespace(tasks=tasks), 3, Path('unused'), print
        )
    assert len(ended) == 1
