"""The launch scripts, with two processes.

Gloo joins them on the CPU; on a machine with two GPUs NCCL does.
"""

import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import free_port
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

ROOT = Path(__file__).parents[1]
HELPERS = str(ROOT / 'tests' / 'test_hooks')
sys.path.insert(0, HELPERS)

import toy_runs  # noqa: E402

sys.path.remove(HELPERS)

pytestmark = pytest.mark.slow

EPOCHS = 3
# Seconds, where the scripts take some ten.
LIMIT = 240
NUMBERS = itertools.count()


def visible_gpus(machine=None):
    """Two for the processes of one machine, or one on each of two."""
    if torch.cuda.device_count() < 2:
        return ''
    return '0,1' if machine is None else machine


class Launched:
    """A script of tools/ with this interpreter as ``python``.

    What it writes goes to a file, for a pipe that nobody reads stops a
    process, and those that wait for it. Each of its processes that lives too
    long writes where it stands and ends.
    """

    def __init__(self, folder, script, *args, **variables):
        self.written = Path(folder) / f'written{next(NUMBERS)}.txt'
        environment = dict(
            os.environ,
            CUDA_VISIBLE_DEVICES=visible_gpus(variables.get('NODE_RANK')),
            PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            PYTHONPATH=os.pathsep.join([str(ROOT), str(folder)]),
            OMP_NUM_THREADS='1',
            **variables,
        )
        with self.written.open('w') as file:
            self.process = subprocess.Popen(
                [str(ROOT / 'tools' / script), *map(str, args)],
                cwd=folder,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self):
        return self.written.read_text()

    @property
    def code(self):
        return self.process.poll()


def wait_for(*launched):
    """Until all have ended. Gloo gives up after half an hour, this sooner.

    Those that a failure leaves behind may wait for the one that is gone.
    """
    until = time.monotonic() + LIMIT + 20
    try:
        while any(each.code is None for each in launched):
            if any(each.code for each in launched):
                until = min(until, time.monotonic() + 60)
            if time.monotonic() > until:
                break
            time.sleep(0.1)
    finally:
        for each in launched:
            each.process.kill()
            each.process.wait()


def end(*launched):
    """Waits for processes that succeed; returns what they wrote."""
    wait_for(*launched)
    output = '\n'.join(each.output for each in launched)
    assert [each.code for each in launched] == [0] * len(launched), output
    return output


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images, a teacher and the config of a run."""
    folder = tmp_path_factory.mktemp('processes')
    (folder / 'sitecustomize.py').write_text(
        'import faulthandler\n'
        f'faulthandler.dump_traceback_later({LIMIT}, exit=True)\n'
    )
    toy_runs.make_images(folder / 'images')
    teacher = toy_runs.save_teacher(folder / 'teacher.pth')
    config = toy_runs.run_config(
        folder / 'images',
        toy_runs.distilled(teacher),
        length=EPOCHS,
        # Two processes see together what one sees alone.
        **{'train_dataloader.batch_size': 3},
    )
    config.dump(folder / 'run.py')
    return folder


@pytest.fixture(scope='module')
def trained(folder):
    """The output of a training with two processes."""
    return end(
        Launched(
            folder,
            'dist_train.sh',
            'run.py',
            2,
            '--work-dir',
            'whole',
            PORT=str(free_port()),
        )
    )


def accuracy(output):
    return re.findall(r'accuracy/top1: ([\d.]+)', output)[-1]


def test_two_processes_train_and_leave_a_plain_student(folder, trained):
    steps = toy_runs.logged(folder / 'whole')
    # 24 images, of which each process has half, 3 in a step.
    assert sorted(steps) == list(range(1, 4 * EPOCHS + 1))
    for step in steps.values():
        assert step['loss_ctkd'] > 0 and step['loss_rank'] != 0
    saved = torch.load(
        folder / 'whole' / f'epoch_{EPOCHS}.pth', weights_only=False
    )
    init_default_scope('mmpretrain')
    plain = MODELS.build(toy_runs.classifier())
    DefaultScope._instance_dict.clear()
    plain.load_state_dict(saved['state_dict'], strict=True)
    assert not list((folder / 'whole').glob('*.partial'))
    assert 'Distillation settings' in trained


def test_two_machines_resume_what_one_began(folder, trained):
    """torchrun on each, which agree on a port: here both are this one."""
    work_dir = folder / 'resumed'
    work_dir.mkdir()
    (work_dir / 'epoch_2.pth').write_bytes(
        (folder / 'whole' / 'epoch_2.pth').read_bytes()
    )
    where = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=str(free_port()))
    options = ['run.py', 1, '--work-dir', 'resumed', '--resume']
    output = end(
        *(
            Launched(
                folder, 'dist_train.sh', *options, NODE_RANK=rank, **where
            )
            for rank in '01'
        )
    )
    assert 'epoch_2.pth' in output
    steps = toy_runs.logged(work_dir)
    assert sorted(steps) == list(range(9, 4 * EPOCHS + 1))
    # The second process draws other random numbers than it would have, so
    # the terms differ; what was learned before does not.
    before = toy_runs.logged(folder / 'whole')[9]
    for key in ('kd/temperature', 'lr'):
        assert steps[9][key] == before[key]


def test_machines_that_see_other_checkpoints_are_refused(folder, trained):
    where = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=str(free_port()))
    processes = [
        Launched(
            folder,
            'dist_train.sh',
            'run.py',
            1,
            '--work-dir',
            work_dir,
            '--resume',
            NODE_RANK=rank,
            **where,
        )
        for rank, work_dir in (('0', 'whole'), ('1', 'empty'))
    ]
    wait_for(*processes)
    outputs = [process.output for process in processes]
    assert [process.code for process in processes] == [1, 1], outputs
    assert any('by rank they are at iterations [12, 0]' in o for o in outputs)


def test_two_processes_score_as_one(folder, trained):
    """And both with the student's own config, which knows no teacher."""
    config = Config.fromfile(folder / 'run.py')
    config.model = config.model.student
    config.dump(folder / 'student.py')
    checkpoint = folder / 'whole' / f'epoch_{EPOCHS}.pth'
    together = end(
        Launched(
            folder,
            'dist_test.sh',
            'student.py',
            checkpoint,
            2,
            '--work-dir',
            'two',
            PORT=str(free_port()),
        )
    )
    assert accuracy(together) == accuracy(trained)


def test_a_script_without_its_arguments_says_how_it_is_used(folder):
    for script in ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh'):
        process = Launched(folder, script)
        wait_for(process)
        assert process.code == 2
        assert f'tools/{script}' in process.output
