"""A cell under way, in processes of its own."""

import copy
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import ConfigDict

from mmrkkd.checkpoint.atomic import write_json

from .cells import ROOT, Cell
from .compare import comparison_config
from .methods import AblationError
from .records import RESULT, STATE, measurements, read_json

TRAIN = ROOT / 'tools' / 'train.py'
COMPARE = ROOT / 'tools' / 'analysis_tools' / 'teacher_agreement.py'
TRAIN_LINE = re.compile(
    r'(?:Epoch\(train\) *\[ *(?P<epoch>\d+)\]|Iter\(train\) *)'
    r'\[ *(?P<done>\d+)/(?P<all>\d+)\]'
)
LOSS = re.compile(r'\bloss: (-?[\d.]+)')
SECONDS_BETWEEN_NOTES = 10
SECONDS_TO_STOP = 10
LOG_LINES_SHOWN = 12


class Job:
    """A cell under way: its training, then its comparison.

    Args:
        cell: The cell.
        teacher: Model config whose teacher a student without one is
            compared with, or None.
        metric: Log key of the validation.
        threads: OpenMP threads of its process.
        surroundings: Commit, versions and hardware, for the record.
    """

    def __init__(
        self,
        cell: Cell,
        teacher: ConfigDict | None,
        metric: str,
        threads: int,
        surroundings: dict,
    ) -> None:
        self.cell, self.teacher, self.metric = cell, teacher, metric
        self.threads = threads
        cell.folder.mkdir(parents=True, exist_ok=True)
        self.lock = _locked(cell)
        self.state = read_json(cell.folder / STATE) or dict(
            key=cell.key,
            settings=cell.settings,
            label=cell.method.label,
            seed=cell.seed,
            config=str(cell.method.config),
            cfg_options=cell.method.options,
            seconds=0.0,
            processor_seconds=0.0,
            attempts=[],
            trained=False,
        )
        self.epochs, self.first_epoch, self.text = 0.0, None, ''
        self.stage, self.process, self.reader = 'new', None, None
        if self.state['trained']:
            self._start_comparison()
        else:
            self.state['attempts'].append(surroundings)
            self._start_training()

    def poll(self) -> str | None:
        """Looks after the process, starts the next one.

        Returns:
            None while at work, '' when finished, otherwise what failed.
        """
        if self.stage == 'finished':
            return ''
        self._read_output()
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        self._note_time()
        if not pid:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self._read_output()
        if self.stage == 'training':
            self.state['processor_seconds'] += usage.ru_utime + usage.ru_stime
            self._note_time(always=True)
        if self.process.returncode:
            return self._failure()
        try:
            if self.stage == 'training':
                self.state['trained'] = True
                self._note_time(always=True)
                self._start_comparison()
                return '' if self.stage == 'finished' else None
            self._finish(_last_json(self.output))
        except (AblationError, OSError, ValueError) as error:
            return f'{self.cell.title}: {error} (log: {self.log})'
        return ''

    def stop(self) -> None:
        """Ends the process and everything that it started."""
        if self.process is not None and self.process.returncode is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(self.process.pid, number)
                    self.process.wait(SECONDS_TO_STOP)
                    break
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
            if self.stage == 'training':
                self._note_time(always=True)
        self.close()

    def close(self) -> None:
        """Lets go of the folder."""
        if self.reader is not None:
            self.reader.close()
        self.lock.close()

    @property
    def pace(self) -> float | None:
        """Seconds an epoch of this attempt; None before one can say."""
        if self.first_epoch is None or self.epochs <= self.first_epoch:
            return None
        return (time.time() - self.began) / (self.epochs - self.first_epoch)

    def _start_training(self) -> None:
        folder = self.cell.folder
        config = copy.deepcopy(self.cell.config)
        config.work_dir = str(folder)
        config.randomness = dict(
            config.get('randomness') or {}, seed=self.cell.seed
        )
        config.dump(folder / 'cell_config.py')
        command = [TRAIN, folder / 'cell_config.py', '--work-dir', folder]
        if (folder / 'last_checkpoint').is_file():
            command.append('--resume')
        write_json(folder / STATE, self.state)
        self._start('training', command, folder / 'train.log')

    def _start_comparison(self) -> None:
        folder = self.cell.folder
        config = comparison_config(self.cell.config, self.teacher)
        if config is None:
            self._finish({})
            return
        config.dump(folder / 'compare_config.py')
        command = [COMPARE, folder / 'compare_config.py', self._checkpoint()]
        self._start('comparison', command, folder / 'compare.log')

    def _start(self, stage: str, command: list, log: Path) -> None:
        self.stage, self.log, self.output, self.partial = stage, log, '', ''
        environment = dict(
            os.environ,
            PYTHONUNBUFFERED='1',
            OMP_NUM_THREADS=str(self.threads),
        )
        # Waiting threads that spin take the cores from those that work.
        environment.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
        environment['PYTHONPATH'] = os.pathsep.join(
            filter(None, [str(ROOT), environment.get('PYTHONPATH')])
        )
        with open(log, 'a') as file:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Whoever comes later must see that the cell is being
                # trained, even where this process was killed.
                pass_fds=[self.lock.fileno()],
            )
            offset = file.tell()
        self.began = self.noted = time.time()
        if self.reader is not None:
            self.reader.close()
        self.reader = open(log, errors='replace')  # noqa: SIM115
        self.reader.seek(offset)

    def _read_output(self) -> None:
        text = self.reader.read()
        self.output = (self.output + text)[-20_000:]
        *lines, self.partial = (self.partial + text).split('\n')
        for line in lines:
            match = TRAIN_LINE.search(line)
            if match:
                done, total = int(match['done']), int(match['all'])
                self.epochs = (
                    done
                    if match['epoch'] is None
                    else int(match['epoch']) - 1 + done / total
                )
                if self.first_epoch is None:
                    # What came before was done by an earlier attempt.
                    self.first_epoch = int(self.epochs - 1e-9)
                values = LOSS.findall(line)
                self.text = f' loss {values[-1]}' if values else ''

    def _note_time(self, always: bool = False) -> None:
        """Adds up the seconds at work, so that a kill loses few of them."""
        now = time.time()
        if self.stage == 'training' and (
            always or now - self.noted > SECONDS_BETWEEN_NOTES
        ):
            self.state['seconds'] += now - self.noted
            self.noted = now
            write_json(self.cell.folder / STATE, self.state)

    def _failure(self) -> str:
        end = ''.join(
            f'\n    {line}'
            for line in self.output.splitlines()[-LOG_LINES_SHOWN:]
        )
        return (
            f'{self.cell.title}: {self.stage} ended with code '
            f'{self.process.returncode}, see {self.log}{end}'
        )

    def _checkpoint(self) -> str:
        return (self.cell.folder / 'last_checkpoint').read_text().strip()

    def _finish(self, agreement: dict) -> None:
        self.stage = 'finished'
        result = {
            name: value
            for name, value in self.state.items()
            if name not in ('settings', 'trained')
        }
        result.update(
            measurements(self.cell.folder, self.metric),
            agreement=agreement,
            checkpoint=self._checkpoint(),
        )
        write_json(self.cell.folder / RESULT, result)


def _locked(cell: Cell):
    lock = open(cell.folder / 'lock', 'w')  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise AblationError(
            f'{cell.folder} is being trained by another process; wait for '
            'it, or end it'
        ) from error
    return lock


def _last_json(output: str) -> dict:
    """The last line that is a JSON object."""
    for line in reversed(output.splitlines()):
        if line.startswith('{'):
            return json.loads(line)
    raise AblationError('the comparison with the teacher printed no result')
