"""From a student's config and a teacher to the config of a distillation."""

import copy
import os
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict

from mmrkkd.checkpoint import fetch_checkpoint, read_checkpoint
from mmrkkd.cli import find_config, load_config
from mmrkkd.datasets import inner_datasets
from mmrkkd.distillers.teacher import read_teacher_config
from mmrkkd.registry import MODELS, type_name

from .fitting import Detectors
from .methods import Method, losses_of, read_method

# Bases of the packages' models -> the distiller of ours.
DISTILLERS = {
    'BaseDetector': ('detector', 'mmrkkd.KDDetector'),
    'BaseClassifier': ('classifier', 'mmrkkd.KDClassifier'),
}


class Distillation(NamedTuple):
    """A distillation that can be run.

    Args:
        config: The whole config.
        method: What it distils with.
        kind: What the student is.
    """

    config: Config
    method: Method
    kind: str


def wrap(
    student: str | os.PathLike | Config,
    teacher: str | os.PathLike | dict,
    checkpoint: str | os.PathLike,
    method: str = 'rkkd',
    trust: bool = False,
) -> Distillation:
    """Puts a teacher beside the model of a config.

    Args:
        student: Path or name of a config (:func:`mmrkkd.cli.load_config`),
            or the config; not changed.
        teacher: The same for the teacher.
        checkpoint: Path or https URL of the teacher's weights; a URL is
            fetched.
        method: See :mod:`mmrkkd.commands.methods`. Defaults to 'rkkd'.
        trust: Read a checkpoint that holds more than weights, which can run
            code of its author. Defaults to False.

    Raises:
        FileNotFoundError: a config or the checkpoint is not there.
        ValueError: the two are not made for the same task, the student's
            config has no model or is a distillation already, there is no
            such method, it does not go with the data or the two, or the
            checkpoint cannot be read.
    """
    config = read_student(student)
    if not isinstance(teacher, dict):
        teacher = find_config(teacher)
    teacher_config = read_teacher_config(teacher)
    task, distiller = task_of(config, 'student')
    # A teacher's model without a scope is built in the student's.
    teacher_config.setdefault('default_scope', config.get('default_scope'))
    others, _ = task_of(teacher_config, 'teacher')
    if others != task:
        raise ValueError(
            f'the student is a {task} ({type_name(config.model)}) and the '
            f'teacher a {others} ({type_name(teacher_config.model)}): give '
            'the config of a teacher of the same task'
        )
    # Damaged, or of another kind: nothing is written yet.
    read_checkpoint(fetch_checkpoint(checkpoint), trust)
    if task == 'detector':
        detectors = Detectors(config, teacher_config)
        kind, chosen = detectors.kind, detectors.method(method)
    else:
        kind = _kind_of_classifier(config)
        chosen = read_method(method, kind)
    _check_views(config, chosen)
    _check_numbers(config, chosen)
    where = dict(config=teacher, checkpoint=_anywhere(checkpoint))
    if trust:
        where['trust_checkpoint'] = True
    config.model = ConfigDict(
        type=distiller,
        student=config.model,
        teacher=where,
        losses=chosen.losses,
        task_weight=chosen.task_weight,
    )
    if chosen.matching is not None:
        config.model.matching = chosen.matching
    return Distillation(config, chosen, kind)


def read_student(student: str | os.PathLike | Config) -> Config:
    """The config of a student; see :func:`wrap`."""
    name = getattr(student, 'filename', student) or 'the student'
    if isinstance(student, Config):
        config = copy.deepcopy(student)
    else:
        config = load_config(student)
    if 'model' not in config:
        raise ValueError(
            f'{name} has no model, only {sorted(config)[:10]}: give the '
            'config of a training of the student alone'
        )
    if 'student' in config.model:
        raise ValueError(
            f'{name} is a distillation already: run it as it is with '
            f"'mmrkkd train {name}', or give the config of its student alone"
        )
    return config


def task_of(config: dict, owner: str) -> tuple[str, str]:
    """What a config's model is for: its name, and our distiller's.

    Args:
        config: A whole config.
        owner: Whose it is, for the message.

    Raises:
        ValueError: it is neither a detector nor a classifier, or no
            installed package has it.
    """
    kind = config['model'].get('type')
    if isinstance(kind, str):
        scope = config.get('default_scope') or 'mmengine'
        with MODELS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    for base in getattr(kind, '__mro__', ()):
        if base.__name__ in DISTILLERS:
            return DISTILLERS[base.__name__]
    known = 'is neither a detector of MMDetection nor a classifier of '
    raise ValueError(
        f'the {owner} {config["model"].get("type")!r} '
        f'{known if kind else "is in no installed package of "}'
        f'MMPretrain; default_scope is {config.get("default_scope")!r}'
    )


def _kind_of_classifier(config: Config) -> str:
    """A classifier, or one of ImageNet, which has settings of its own."""
    loader = config.get('train_dataloader') or {}
    sets = inner_datasets(loader.get('dataset'))
    if any(type_name(dataset) == 'ImageNet' for dataset in sets):
        return 'classifier of ImageNet'
    return 'classifier'


def _check_views(config: Config, method: Method) -> None:
    views = max(getattr(loss, 'views', 1) for loss in losses_of(method))
    if views == 1:
        return
    loader = config.get('train_dataloader') or {}
    for dataset in inner_datasets(loader.get('dataset')):
        steps = dataset.get('pipeline') or ()
        if not any(type_name(step) == 'MultiView' for step in steps):
            raise ValueError(
                f'the method {method.name!r} compares {views} views of each '
                'image, and the pipeline of train_dataloader makes one: use '
                'MultiView there, as configs/_base_/datasets/'
                'cifar100_two_views.py does'
            )


def _check_numbers(config: Config, method: Method) -> None:
    """Refuses data whose samples do not say which they are, for CRD."""
    loader = config.get('train_dataloader') or {}
    numbered = type_name(loader.get('dataset')) == 'ContrastiveDataset'
    if not numbered and any(
        hasattr(loss, 'num_data') for loss in losses_of(method)
    ):
        raise ValueError(
            f'the method {method.name!r} keeps a row for each image, and the '
            'data set of train_dataloader does not number them: wrap it in '
            'mmrkkd.ContrastiveDataset, as configs/_base_/datasets/'
            'cifar100_contrastive.py does, and set model.losses.num_data to '
            'the number of its images'
        )


def _anywhere(checkpoint: str | os.PathLike) -> str:
    """A URL, or a path that means the same from every folder."""
    location = os.fspath(checkpoint)
    if '://' in location:
        return location
    return str(Path(location).expanduser().absolute())
