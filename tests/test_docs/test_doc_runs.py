"""Commands and programs of the documentation run, on small stand-ins.

What ends within seconds is run as it stands, with small files under the names
that the pages use. What is not run is declared, with the reason; its options
are checked by test_commands_in_docs.py all the same.
"""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, classifier_config, detector_config
from doc_blocks import blocks, commands
from mmengine.config import Config
from mmengine.logging import MMLogger
from program_parsers import target_of

from mmrkkd.commands import program

sys.path.append(str(ROOT / 'tests' / 'test_commands'))
from small_runs import (
    CLASSES,
    draw_images,
    random_weights,
    student_config,
)

# Commands that run here -> the exit code that they end with: random weights
# are a useless teacher. They run in this order, as a user would run them.
RUN = {
    'mmrkkd distill STUDENT_CONFIG --teacher TEACHER_CONFIG TEACHER.pth '
    '--dry-run': 0,
    'mmrkkd check-teacher TEACHER_CONFIG TEACHER.pth '
    '--student STUDENT_CONFIG': 1,
    'mmrkkd distill STUDENT_CONFIG --teacher TEACHER_CONFIG TEACHER.pth': 0,
    'mmrkkd distill STUDENT_CONFIG --teacher TEACHER_CONFIG TEACHER.pth '
    '--method kd': 0,
    'mmrkkd report work_dirs/RUN': 0,
    'python tools/train.py CONFIG': 0,
    'python tools/train.py CONFIG --resume': 0,
    'python tools/test.py my_student.py iter_4.pth': 0,
    'python tools/publish_model.py iter_4.pth student.pth': 0,
    'python tools/calibrate.py CONFIG --share 0.3': 0,
    'python tools/analysis_tools/teacher_agreement.py CONFIG CHECKPOINT': 0,
}
# Where a command stands for a run of the user's -> the file here.
STAND_INS = {
    'STUDENT_CONFIG': 'my_student.py',
    'TEACHER_CONFIG': 'my_teacher.py',
    'TEACHER.pth': 'my_teacher.pth',
    'CONFIG': 'kd.py',
    'CHECKPOINT': 'iter_4.pth',
    'work_dirs/RUN': 'work_dirs/rkkd_my_student',
}
# Pattern -> why it is not run.
NOT_RUN = {
    r'make ': 'installs, or takes minutes; the workflow of a checkout',
    r'(\.venv/bin/)?pip install |sudo ': 'changes the environment',
    r'export ': 'a variable of the shell',
    r'package=|python \$package': "MMDetection's own script",
    r'.*data_root=|.*_coco\.py|.*configs/\S+(cifar100|image-folder)': (
        'needs a data set that is not part of the repository'
    ),
    r'(\.venv/bin/)?python tools/(demo|benchmarks)': (
        'minutes; tests/test_tools runs it'
    ),
    r'python tools/make_demo_data.py': 'draws 5,000 images',
    r'python tools/analysis_tools/draw_differences.py': (
        'needs results of ablations; tests/test_tools runs it'
    ),
    r'python tools/gpu/': 'needs photos and minutes of a GPU',
    r'python tools/dataset_tools/': 'needs a data set; tests/test_tools',
    r'(python tools/ablation.py|mmrkkd ablate) ': (
        'several trainings; tests/test_tools runs it'
    ),
    r'tools/(dist|slurm)_': 'several processes; tests/test_many_processes.py',
    r'mmrkkd (report work_dirs|figure)': 'finished runs; tests/test_commands',
    r'python tools/train.py (PLACEHOLDER|CONFIG --cfg-options)': (
        'a schedule of hours; tests/test_together runs it'
    ),
    r'python tools/calibrate.py CONFIG --batches': 'as with --share',
}
ALL = list(commands())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The files of a user, small."""
    folder = tmp_path_factory.mktemp('docs')
    draw_images(folder / 'images')
    config = student_config(folder / 'images', epochs=1)
    for name in ('my_student', 'my_teacher', 'my_config'):
        config.dump(folder / f'{name}.py')
    for name in ('student', 'teacher'):
        config.dump(folder / f'{name}.py')
        random_weights(classifier_config(), folder / f'{name}.pth')
    for name in ('my_teacher', 'iter_4'):
        random_weights(classifier_config(), folder / f'{name}.pth')
    student = config.model
    config.model = dict(
        type='mmrkkd.KDClassifier',
        student=student,
        teacher=dict(
            config=str(folder / 'my_teacher.py'),
            checkpoint=str(folder / 'my_teacher.pth'),
        ),
        losses=dict(type='mmrkkd.RankKDLoss', temperature=4.0),
    )
    config.dump(folder / 'kd.py')
    return folder


@pytest.fixture
def in_folder(folder, monkeypatch):
    """Here, and with settings of the process put back."""
    monkeypatch.chdir(folder)
    before = torch.get_rng_state(), np.random.get_state(), dict(os.environ)
    yield
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])
    os.environ.clear()
    os.environ.update(before[2])
    MMLogger._instance_dict.clear()


def runs_in_the_folder(test):
    return pytest.mark.slow(pytest.mark.usefixtures('in_folder')(test))


@pytest.mark.parametrize('command', ALL, ids=map(str, ALL))
def test_the_command_is_run_or_declared(command):
    text = command.text.replace("'", '')
    reasons = [why for what, why in NOT_RUN.items() if re.match(what, text)]
    assert command.text in RUN or reasons, (
        f'{command}: run it here (RUN), or say why not (NOT_RUN)'
    )


@runs_in_the_folder
def test_the_commands_run_one_after_the_other(capsys):
    for text, expected in RUN.items():
        assert text in {command.text for command in ALL}, 'no page has it'
        name, arguments = target_of(text.split())
        arguments = [STAND_INS.get(word, word) for word in arguments]
        if name.endswith('.py'):
            path = ROOT / name
            code = program.run_script(path, path.name, arguments)
        else:
            code = program.main([name, *arguments])
        assert code == expected, (text, capsys.readouterr())
        MMLogger._instance_dict.clear()


def programs_of(page):
    return [
        found.text
        for found in blocks()
        if found.page == f'docs/en/{page}' and found.language == 'python'
    ]


def run(source, names=None):
    names = {} if names is None else names
    exec(compile(source, 'page', 'exec'), names)
    return names


@runs_in_the_folder
def test_get_started_distils_from_python():
    first, *_ = programs_of('get_started.md')
    result = run(first)['result']
    assert 'accuracy/top1' in result.metrics
    assert Path(result.checkpoint).is_file()


@runs_in_the_folder
def test_robust_runs_prepares_a_run():
    (source,) = [s for s in programs_of('robust_runs.md') if 'prepare' in s]
    run(source)
    assert Path('work_dirs/mine/epoch_1.pth').is_file()


@runs_in_the_folder
def test_deploy_exports_a_classifier():
    pytest.importorskip('onnx')
    build, export, _ = programs_of('deploy.md')
    names = run(export, run(build))
    assert not names['student'].training
    images = torch.randn(3, 3, 32, 32)
    traced = torch.jit.load('student.pt')
    assert torch.equal(traced(images), names['student'](images))
    assert Path('student.onnx').stat().st_size > 0


@runs_in_the_folder
def test_deploy_parts_a_detector(tmp_path, monkeypatch):
    build, _, parts = programs_of('deploy.md')
    monkeypatch.chdir(tmp_path)
    config = Config(dict(default_scope='mmdet', model=detector_config()))
    config.dump('my_student.py')
    random_weights(config.model, 'student.pth', 'mmdet', CLASSES)
    names = run(parts, run(build))
    outputs = names['first'](torch.randn(1, 3, 64, 64))
    assert all(output.dim() == 4 for output in outputs)
    scores, boxes = names['second'](torch.randn(5, 16, 7, 7))
    assert scores.shape == (5, len(CLASSES) + 1) and len(boxes) == 5
