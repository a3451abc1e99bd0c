"""From a student's config and a teacher to the config of a distillation."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from mmrkkd.checkpoint import fetch_checkpoint, read_checkpoint
from mmrkkd.cli import find_config, load_config
from mmrkkd.datasets import inner_datasets
from mmrkkd.distillers.model_config import whole_model
from mmrkkd.distillers.readers import build_reader
from mmrkkd.distillers.teacher import read_teacher_config
from mmrkkd.losses.feature.base import LayersError
from mmrkkd.registry import MODELS, type_name

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
            such method, it does not go with the data, or the checkpoint
            cannot be read.
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
    kind = _kind(config, task)
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


def _kind(config: Config, task: str) -> str:
    """The task, and what of the student decides about settings."""
    if task == 'classifier':
        loader = config.get('train_dataloader') or {}
        sets = inner_datasets(loader.get('dataset'))
        if any(type_name(dataset) == 'ImageNet' for dataset in sets):
            return 'classifier of ImageNet'
        return task
    scope = config.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope):
        student = MODELS.build(whole_model(config))
    scores = build_reader('auto', student).scores(student)
    return 'dense detector' if scores.activation == 'sigmoid' else task


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


@contextmanager
def saying_how_to_name_layers(config: Config) -> Iterator[None]:
    """Tells of layers that do not fit how others are named.

    A method has those of the models that it was published with.

    Args:
        config: Of the distillation.

    Raises:
        LayersError: one was raised inside; with the settings that name the
            layers of its loss.
    """
    try:
        yield
    except LayersError as error:
        key, layer = 'model.losses', 'backbone.layer3'
        if isinstance(config.model.losses, list):
            key += f'.{_place(config.model.losses, error.loss)}'
        if error.loss.needs_statistics:
            layer = 'before backbone.layer4.1.relu[1]'
        raise LayersError(
            f'{error}. Layers are named by --cfg-options '
            f'"{key}.student_layers=[\'{layer}\']" and '
            f'{key}.teacher_layers in the same way (docs/en/features.md)',
            error.loss,
        ) from error


def _place(losses: list[dict], loss: object) -> int:
    """Where a loss stands among the configs of losses."""
    names = [type_name(each) for each in losses]
    return names.index(type(loss).__name__)


def _anywhere(checkpoint: str | os.PathLike) -> str:
    """A URL, or a path that means the same from every folder."""
    location = os.fspath(checkpoint)
    if '://' in location:
        return location
    return str(Path(location).expanduser().absolute())
