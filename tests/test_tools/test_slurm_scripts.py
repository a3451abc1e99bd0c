"""What the scripts for Slurm ask of it; srun here is one that tells."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
SCRIPTS = ('slurm_train.sh', 'slurm_test.sh')


@pytest.fixture
def asked(tmp_path):
    """From a script and its environment to the words that srun gets."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith('GPUS')}
    path = f'{tmp_path}:{os.environ["PATH"]}'

    def ask(script, *arguments, **variables):
        return subprocess.run(
            [TOOLS / script, *arguments],
            env={**kept, 'PATH': path, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return ask


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize(
    ('variables', 'tasks', 'a_node'),
    [
        ({}, 8, 8),
        ({'GPUS': '1'}, 1, 1),
        ({'GPUS': '4'}, 4, 4),
        ({'GPUS': '16'}, 16, 8),
        ({'GPUS': '4', 'GPUS_PER_NODE': '2'}, 4, 2),
    ],
)
def test_no_more_gpus_are_asked_for_than_are_used(
    asked, script, variables, tasks, a_node
):
    done = asked(script, 'part', 'job', 'config.py', 'last', **variables)
    words = done.stdout.split('\n')
    assert f'--ntasks={tasks}' in words, done.stderr
    assert f'--ntasks-per-node={a_node}' in words
    assert f'--gres=gpu:{a_node}' in words


@pytest.mark.parametrize('script', SCRIPTS)
def test_the_usage_tells_the_defaults(asked, script):
    done = asked(script)
    assert done.returncode == 2
    assert f'tools/{script} PARTITION' in done.stderr
    assert done.stderr.endswith('the smaller of GPUS and 8.\n')
