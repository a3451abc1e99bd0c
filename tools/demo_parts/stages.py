"""Training runs as stages: each a subprocess, done once for its content."""

import hashlib
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
RECORD = 'stage.json'
PATH_OPTIONS = ('data_root', 'model.teacher.checkpoint')
# What of the package can change the result of a training.
PLAIN_SOURCES = ('mmrkkd/datasets',)
DISTILLING_SOURCES = (
    'mmrkkd/datasets',
    'mmrkkd/losses',
    'mmrkkd/models',
    'mmrkkd/ops',
)
LOG_LINES_SHOWN = 25
TRAIN_LINE = re.compile(r'Iter\(train\) *\[ *(\d+)/(\d+)\]')
VALUES = re.compile(r'\b(loss|loss_rank|kd/tau): (-?[\d.]+)')


class StageError(RuntimeError):
    """A stage did not finish; the message says where to look."""


@dataclass(frozen=True)
class Stage:
    """One training run.

    Args:
        name: Name of its folder.
        title: Its row in the table.
        config: File in ``configs/demo``.
        cost: Expected seconds on two cores, to weigh it in the progress bar.
        distils: Whether it needs the teacher's checkpoint.
    """

    name: str
    title: str
    config: str
    cost: float
    distils: bool = False


def train_command(stage, folder, options):
    """What a user would type to run this stage."""
    return [
        sys.executable,
        'tools/train.py',
        f'configs/demo/{stage.config}',
        '--work-dir',
        str(folder),
        '--cfg-options',
        *(f'{key}={value}' for key, value in options.items()),
    ]


def shown(command):
    """A command as a line to paste into a shell."""
    return shlex.join(['python', *map(str, command[1:])])


def fingerprint(stage, options, inputs):
    """Hash of everything that a stage's result depends on.

    Args:
        stage: The ``Stage``.
        options: Its ``--cfg-options``, as a dict.
        inputs: Anything else that JSON can hold: the recipe of the data,
            the fingerprint of the teacher, versions.
    """
    config = Config.fromfile(ROOT / 'configs' / 'demo' / stage.config)
    # Paths tell where something lies, not what it is.
    text = config.dump().replace(str(ROOT), '')
    options = {k: v for k, v in options.items() if k not in PATH_OPTIONS}
    digest = hashlib.sha256(text.encode())
    digest.update(json.dumps([options, inputs], sort_keys=True).encode())
    for folder in DISTILLING_SOURCES if stage.distils else PLAIN_SOURCES:
        for path in sorted((ROOT / folder).rglob('*.py')):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_record(folder):
    """What an earlier run left in this folder, or {}."""
    try:
        return json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}


def finished(folder, key):
    """Whether the folder holds the finished stage of this fingerprint."""
    record = read_record(folder)
    return (
        record.get('fingerprint') == key
        and 'seconds' in record
        and Path(record['checkpoint']).is_file()
    )


def prepare_folder(folder, key):
    """Empties a stage's folder and marks it as unfinished.

    Raises:
        StageError: It holds files, but none that a stage left behind.
    """
    if folder.exists():
        if any(folder.iterdir()) and not (folder / RECORD).is_file():
            raise StageError(
                f'{folder} is not empty and was not written by the demo; '
                'name another --work-dir'
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_record(folder, dict(fingerprint=key))


def write_record(folder, record):
    """Writes a stage's record, whole or not at all."""
    partial = folder / (RECORD + '.partial')
    partial.write_text(json.dumps(record, indent=2) + '\n')
    partial.replace(folder / RECORD)


def run_stage(stage, folder, options, key, on_progress):
    """Trains; returns and writes the record of the stage.

    Args:
        stage: The ``Stage``.
        folder: Its work directory.
        options: ``--cfg-options``, as a dict.
        key: Its fingerprint.
        on_progress: Called with the share that is done, in [0, 1], and the
            current values as text.

    Raises:
        StageError: The training failed; the message ends with its log.
    """
    prepare_folder(folder, key)
    command = train_command(stage, folder, options)
    start, work = time.time(), _child_seconds()
    run_logged(command, folder / 'train.log', on_progress)
    checkpoint = Path((folder / 'last_checkpoint').read_text().strip())
    record = dict(
        fingerprint=key,
        seconds=round(time.time() - start, 1),
        # Independent of what else the machine did, unlike the seconds.
        processor_seconds=round(_child_seconds() - work, 1),
        checkpoint=str(checkpoint),
        command=shown(command),
        load_average=os.getloadavg()[0],
    )
    write_record(folder, record)
    return record


def environment():
    """The environment variables of a training in the background."""
    variables = dict(os.environ, PYTHONUNBUFFERED='1')
    variables['PYTHONPATH'] = os.pathsep.join(
        filter(None, [str(ROOT), variables.get('PYTHONPATH')])
    )
    # Waiting threads that spin take the cores from those that work: with
    # anything else on the machine a step takes ten times as long.
    variables.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    # Small images: more threads than this only wait for each other.
    variables.setdefault(
        'OMP_NUM_THREADS', str(min(len(os.sched_getaffinity(0)), 8))
    )
    return variables


def run_logged(command, log, on_progress=None):
    """Runs a command in the repository's root, its output in a file."""
    lines = []
    with (
        open(log, 'w') as file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            text=True,
            errors='replace',
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            for line in process.stdout:
                file.write(line)
                lines = [*lines, line][-LOG_LINES_SHOWN:]
                match = TRAIN_LINE.search(line)
                if match and on_progress:
                    done, total = map(int, match.groups())
                    on_progress(done / total, _values(line))
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise StageError(
            f'{shown(command)}\nended with code {process.returncode}. The '
            f'end of {log}:\n\n{"".join(lines)}'
        )
    return ''.join(lines)


def _child_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _values(line):
    return ' '.join(
        f'{key} {float(value):.3f}' for key, value in VALUES.findall(line)
    )
