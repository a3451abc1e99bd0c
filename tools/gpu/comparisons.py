"""What ``evidence.py`` trains: a teacher, and students of some methods."""

import math
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_tools.hold_out import FIT, HELD_OUT, write_parts
from experiments import ROOT
from experiments.cells import Cell, make_cells
from experiments.methods import Method

from mmrkkd.report.measurements import AP

from .arms import ALONE, methods_of
from .schedule import Task

PHOTOS = ROOT / 'configs' / 'detection' / 'photos'
CLASSES = ROOT / 'configs' / 'classification' / 'image_folder'
WEIGHTS_VARIABLE = 'PHOTOS_WEIGHTS'
TEACHER = 'teacher'
HELD_OUT_SHARE = 0.2


@dataclass
class Comparison:
    """Methods that are compared on one data set.

    Args:
        name: 'photos' or 'classes'.
        title: What is compared, one sentence for the report.
        methods: The students'.
        teacher: The teacher's, trained with the first seed.
        seeds: Of the students.
        metric: Log key of the validation.
        images: Training images.
        folder: Where it is trained.
        options: Settings of every config.
        steps: Steps of an epoch. Defaults to 0, not known.
        is_rehearsal: Whether it is trained on some images only. Defaults to
            False.
        checkpoint: A teacher's that is there already. Defaults to None.
        epochs: Of the students; set by :meth:`plan`.
        teacher_epochs: The same of the teacher.
        tasks: What is trained; made by :meth:`plan`.
    """

    name: str
    title: str
    methods: Sequence[Method]
    teacher: Method
    seeds: Sequence[int]
    metric: str
    images: int
    folder: Path
    options: dict
    steps: int = 0
    is_rehearsal: bool = False
    checkpoint: Path | None = None
    epochs: int = 0
    teacher_epochs: int = 0
    tasks: list[Task] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """The methods' labels."""
        return [method.label for method in self.methods]

    def plan(self, epochs: int, teacher_epochs: int) -> None:
        """Makes the tasks: the teacher, students alone, all others.

        Args:
            epochs: Of every student, >= 1.
            teacher_epochs: Of the teacher, >= 1.
        """
        self.epochs, self.teacher_epochs = epochs, teacher_epochs
        self.tasks, first = [], None
        checkpoint = self.checkpoint
        if checkpoint is None:
            (cell,) = self.cells([self.teacher], [0], teacher_epochs)
            first = Task(cell, self.metric)
            self.tasks.append(first)
            checkpoint = cell.folder / f'epoch_{teacher_epochs}.pth'
        students = self.cells(self.methods, self.seeds, epochs)
        for cell in sorted(students, key=distils):
            if distils(cell):
                cell.config.model.teacher.checkpoint = str(checkpoint)
            waits = first is not None and distils(cell)
            self.tasks.append(
                Task(cell, self.metric, first, checkpoint)
                if waits
                else Task(cell, self.metric)
            )

    def cells(
        self, methods: Sequence[Method], seeds: Sequence[int], epochs: int
    ) -> list[Cell]:
        """The cells of methods, with a schedule of so many epochs."""
        options = dict(self.options, **_schedule(self.name, epochs))
        return make_cells(methods, seeds, self.folder, options)


def distils(cell: Cell) -> bool:
    """Whether the cell has a teacher."""
    return 'teacher' in cell.config.model


def _schedule(name: str, epochs: int) -> dict:
    """Settings that shorten or lengthen a config's schedule."""
    options = {
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': math.ceil(epochs / 2),
        'default_hooks.checkpoint.interval': epochs,
        'default_hooks.checkpoint.save_optimizer': False,
    }
    if name == 'photos':
        options['param_scheduler.1.T_max'] = epochs
        options['param_scheduler.1.end'] = epochs
    else:
        # Those of CIFAR-100's tables, 150, 180 and 210 of 240.
        options['param_scheduler.milestones'] = [
            round(epochs * share) for share in (0.625, 0.75, 0.875)
        ]
    return options


def photos(
    data: Path,
    folder: Path,
    stage: str,
    detector: str,
    student: str,
    arms: Sequence[str],
    seeds: Sequence[int],
    options: dict,
) -> Comparison:
    """A detector on Pascal VOC photos.

    Args:
        data: Folder with ``voc20`` and ``weights``.
        folder: Where it is trained.
        stage: 'choose' holds a part of the training photos out and does not
            look at the others'; 'final' trains on all of them.
        detector: 'faster-rcnn' or 'gfl', of the teacher too.
        student: 'lite0-s5' or 'mv2'.
        arms: See :func:`methods_of`.
        seeds: Of the students.
        options: Settings of every config.
    """
    root = data / 'voc20'
    annotations = root / 'annotations'
    options = {'data_root': str(root), **options}
    train, val = 'all training photos', 'the validation photos'
    if stage == 'choose':
        parts = folder / 'parts'
        source = annotations / 'instances_train.json'
        count, held = write_parts(source, parts, HELD_OUT_SHARE)
        train = f'{count} of the training photos'
        val = f'the other {held}, held out; nothing looks at the validation'
        options.update(
            {
                'train_dataloader.dataset.ann_file': str(parts / FIT),
                'val_dataloader.dataset.ann_file': str(parts / HELD_OUT),
                'val_dataloader.dataset.data_prefix.img': 'train/',
                'val_evaluator.ann_file': str(parts / HELD_OUT),
            }
        )
    else:
        names = (path.name for path in (root / 'train').iterdir())
        count = sum(not name.startswith('.') for name in names)
    names = dict(
        alone=f'{detector}_{student}_fpn_12e_photos.py',
        others=f'{{}}_{detector}_lite2-{student}_fpn_12e_photos.py',
    )
    return Comparison(
        'photos',
        f'{detector}, teacher EfficientNet-Lite2, student {student}, trained '
        f'on {train}, scored on {val}.',
        methods_of(arms, PHOTOS, names),
        Method(TEACHER, PHOTOS / f'{detector}_lite2_fpn_12e_photos.py'),
        seeds,
        AP,
        count,
        folder,
        options,
    )


def classes(
    data: Path,
    folder: Path,
    arms: Sequence[str],
    seeds: Sequence[int],
    options: dict,
) -> Comparison:
    """ResNet-32x4 and ResNet-8x4 on 100 classes of 32-pixel images.

    Args:
        data: Folder with ``tin32a.tar.gz``, or with ``tin32a`` unpacked.
        folder: Where it is trained, and unpacked.
        arms: See :func:`methods_of`.
        seeds: Of the students.
        options: Settings of every config.
    """
    root = data / 'tin32a'
    if not root.is_dir():
        root = folder / 'tin32a'
        if not root.is_dir():
            _unpack(data / 'tin32a.tar.gz', root)
    teacher = CLASSES / 'resnet32x4_1xb64-40e_image-folder.py'
    names = dict(
        alone='resnet8_1xb64-20e_image-folder.py',
        others='{}_resnet20-resnet8_1xb64-20e_image-folder.py',
    )
    methods = []
    for method in methods_of(arms, CLASSES, names):
        model = 'model' if method.label == ALONE else 'model.student'
        method.options.update(
            {
                f'{model}.backbone.wide': True,
                f'{model}.head.in_channels': 256,
            }
        )
        if method.label != ALONE:
            method.options['model.teacher.config'] = str(teacher)
        methods.append(method)
    return Comparison(
        'classes',
        'Teacher ResNet-32x4, student ResNet-8x4, 100 classes of 32-pixel '
        'images, 50,000 for training.',
        methods,
        Method(TEACHER, teacher),
        seeds,
        'accuracy/top1',
        50_000,
        folder,
        {'data_root': str(root), **options},
    )


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks the archive of a folder, so that one that is there is whole."""
    partial = folder.with_name(f'{folder.name}.partial')
    # What an interruption left.
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as content:
        content.extractall(partial, filter='data')
    (partial / folder.name).rename(folder)
    shutil.rmtree(partial)
