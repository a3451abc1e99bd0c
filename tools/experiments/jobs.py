"""A cell under way, in processes of its own."""

import copy
import json
import re
import time

from mmengine.config import Config, ConfigDict

from mmrkkd.checkpoint.atomic import write_atomically, write_json
from mmrkkd.evaluation.comparison import comparison_config
from mmrkkd.report.measurements import measurements
from mmrkkd.report.runs import CELL_CONFIG, RESULT, STATE

from . import ROOT, ExperimentError
from .cells import Cell
from .detection import keep_predictions, pack_predictions
from .processes import Process
from .records import last_checkpoint, locked, read_json, validated

TRAIN = ROOT / 'tools' / 'train.py'
TEST = ROOT / 'tools' / 'test.py'
COMPARE = ROOT / 'tools' / 'analysis_tools' / 'teacher_agreement.py'
TRAIN_LINE = re.compile(
    r'(?:Epoch\(train\) *\[ *(?P<epoch>\d+)\]|Iter\(train\) *)'
    r'\[ *(?P<done>\d+)/(?P<all>\d+)\]'
)
VALUES = re.compile(r'\b(loss|loss_rank|kd/tau): (-?[\d.]+)')
SECONDS_BETWEEN_NOTES = 10


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
        self.lock = locked(cell)
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
        self.stage, self.process = 'new', None
        if self.state['trained']:
            self.epochs = float(cell.epochs)
            self._after_training()
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
        self._read_lines(self.process.poll())
        self._note_time()
        if self.process.code is None:
            return None
        if self.stage == 'training':
            self.state['processor_seconds'] += self.process.processor_seconds
            self._note_time(always=True)
        if self.process.code:
            return f'{self.cell.title}: {self.stage} {self.process.failure()}'
        try:
            self._after_process()
        except (ExperimentError, OSError, ValueError) as error:
            return f'{self.cell.title}: {error} (log: {self.process.log})'
        return '' if self.stage == 'finished' else None

    def stop(self) -> None:
        """Ends the process and everything that it started."""
        if self.process is not None:
            self.process.stop()
            if self.stage == 'training':
                self._note_time(always=True)
        self.lock.close()

    @property
    def pace(self) -> float | None:
        """Seconds an epoch of this attempt; None before one can say."""
        if self.first_epoch is None or self.epochs <= self.first_epoch:
            return None
        return (time.time() - self.began) / (self.epochs - self.first_epoch)

    def _start_training(self) -> None:
        folder = self.cell.folder
        # Before all other files: it says whose they are, whenever a kill
        # comes.
        write_json(folder / STATE, self.state)
        config = self._config()
        config.dump(folder / CELL_CONFIG)
        command = [TRAIN, folder / CELL_CONFIG, '--work-dir', folder]
        if (folder / 'last_checkpoint').is_file():
            command.append('--resume')
        self._start('training', command)

    def _config(self) -> Config:
        config = copy.deepcopy(self.cell.config)
        config.work_dir = str(self.cell.folder)
        config.randomness = dict(
            config.get('randomness') or {}, seed=self.cell.seed
        )
        keep_predictions(config, self.cell.folder)
        return config

    def _after_process(self) -> None:
        if self.stage == 'training':
            self.state['trained'] = True
            self._note_time(always=True)
            self._after_training()
        elif self.stage == 'validation':
            self._log_validation()
            self._start_comparison()
        else:
            self._finish(_last_json(self.process.output))

    def _after_training(self) -> None:
        if validated(self.cell.folder):
            self._start_comparison()
        else:
            self._start_validation()

    def _start_validation(self) -> None:
        """Makes up for a validation that an interruption has cost."""
        folder = self.cell.folder
        config = self._config()
        config.test_cfg = dict(config.get('test_cfg') or {})
        config.test_dataloader = config.val_dataloader
        config.test_evaluator = config.val_evaluator
        config.dump(folder / 'validation_config.py')
        self._start(
            'validation',
            [
                TEST,
                folder / 'validation_config.py',
                last_checkpoint(folder),
                '--work-dir',
                folder / 'validation',
            ],
        )

    def _log_validation(self) -> None:
        """Writes the made-up validation where a training writes its own."""
        folder = self.cell.folder / 'validation'
        # MMEngine names it for the moment of its start.
        latest = max(folder.glob('*/*.json'))
        entry = dict(read_json(latest), step=self.cell.epochs)
        write_atomically(
            folder / 'vis_data' / 'scalars.json', json.dumps(entry).encode()
        )

    def _start_comparison(self) -> None:
        folder = self.cell.folder
        config = comparison_config(self.cell.config, self.teacher)
        if config is None:
            self._finish({})
            return
        config.dump(folder / 'compare_config.py')
        checkpoint = last_checkpoint(folder)
        command = [COMPARE, folder / 'compare_config.py', checkpoint]
        self._start('comparison', command)

    def _start(self, stage: str, command: list) -> None:
        self.stage = stage
        if self.process is not None:
            self.process.stop()
        name = dict(training='train', comparison='compare').get(stage, stage)
        # Whoever comes later must see that the cell is being trained, even
        # where this process was killed: the lock lives on in the training.
        self.process = Process(
            command,
            self.cell.folder / f'{name}.log',
            self.threads,
            pass_fds=[self.lock.fileno()],
        )
        self.began = self.noted = time.time()

    def _read_lines(self, lines: list[str]) -> None:
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
                self.text = ''.join(
                    f' {key} {float(value):.3f}'
                    for key, value in VALUES.findall(line)
                )

    def _note_time(self, always: bool = False) -> None:
        """Adds up the seconds at work, so that a kill loses few of them."""
        now = time.time()
        if self.stage == 'training' and (
            always or now - self.noted > SECONDS_BETWEEN_NOTES
        ):
            self.state['seconds'] += now - self.noted
            self.noted = now
            write_json(self.cell.folder / STATE, self.state)

    def _finish(self, agreement: dict) -> None:
        self.stage = 'finished'
        result = {
            name: value
            for name, value in self.state.items()
            if name not in ('settings', 'trained')
        }
        pack_predictions(self.cell.folder)
        result.update(
            measurements(self.cell.folder, self.metric),
            agreement=agreement,
            checkpoint=last_checkpoint(self.cell.folder),
        )
        write_json(self.cell.folder / RESULT, result)


def _last_json(output: str) -> dict:
    """The last line that is a JSON object."""
    for line in reversed(output.splitlines()):
        if line.startswith('{'):
            return json.loads(line)
    raise ExperimentError('the comparison with the teacher printed no result')
