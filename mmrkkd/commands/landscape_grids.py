"""The losses around the weights of finished runs, on a grid."""

import argparse
import copy
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmrkkd.distillers.model_config import plain_model
from mmrkkd.distillers.student_state import learned_in
from mmrkkd.engine import prepare_model
from mmrkkd.evaluation.grid_file import GridFile, digest, fill
from mmrkkd.evaluation.held_out_loss import (
    TASK,
    HeldOutLoss,
    held_out_batches,
)
from mmrkkd.evaluation.loss_landscape import (
    Row,
    loss_of_model,
    places,
    random_directions,
    restored,
)
from mmrkkd.evaluation.trial_steps import as_in_training
from mmrkkd.evaluation.weights import load_weights
from mmrkkd.losses.feature import FeatureLoss
from mmrkkd.registry import MODELS
from mmrkkd.report.figures.landscape import LossGrids
from mmrkkd.report.runs import Run, firsts
from mmrkkd.report.selection import Selection

from .scoring import with_present_teacher

# Where the rows that are done are kept, in the folder of the figure.
ROWS = 'landscape_rows'
# By which loss the files are named that hold all of a distillation.
DISTILLATION = 'distillation'


def loss_grids(selection: Selection, args: argparse.Namespace) -> LossGrids:
    """The grid of the first run of each label but the teacher's.

    Rows that are in the figure's folder already are not made again.

    Args:
        selection: The runs.
        args: The options of :mod:`.landscape_options`; ``out``, the figure's
            folder.

    Raises:
        FileNotFoundError: weights or data are missing.
        ValueError: there is no such loss or distillation, the students'
            weights are unlike, or the folder holds grids of other settings.
    """
    runs = list(firsts(selection.students).values())
    for run in runs:
        if run.checkpoint is None:
            raise FileNotFoundError(
                f'the loss landscape needs the weights of {run.title}, and '
                f'{run.folder} holds no checkpoint; put it back, or leave '
                'this RUN out'
            )
    # Initialisation is told parameter by parameter.
    MMLogger.get_instance('report', log_level='WARNING')
    method = None if args.loss == TASK else _method(selection, args)
    grids, shapes = {}, {}
    for run in runs:
        config = _measuring(run, runs[0], method, selection)
        with prepare_model(
            config, 'val_dataloader', args.trust_checkpoint
        ) as model:
            student = getattr(model, 'student', model)
            shapes[run.title] = {
                name: tuple(each.shape)
                for name, each in student.named_parameters()
            }
            _check_alike(shapes)
            grids[run.label] = _grid(run, model, config, method, args)
    return LossGrids(
        args.loss,
        args.images,
        args.seed,
        places(args.span, args.points),
        grids,
    )


def _method(selection: Selection, args: argparse.Namespace) -> Run:
    """The distillation whose losses are measured."""
    taught = [run for run in selection.students if run.distils]
    labels = list(dict.fromkeys(run.label for run in taught))
    if not taught:
        raise ValueError(
            f'--loss {args.loss} is of a distillation, and none of the runs '
            f'has a teacher; give one, or take --loss {TASK}'
        )
    if args.losses_of is not None and args.losses_of not in labels:
        raise ValueError(
            f'--losses-of must be one of {", ".join(labels)}, got '
            f'{args.losses_of!r}'
        )
    wanted = args.losses_of or labels[-1]
    return next(run for run in taught if run.label == wanted)


def _measuring(
    run: Run, first: Run, method: Run | None, selection: Selection
) -> Config:
    """A config with the student, or the distiller, that is measured.

    Args:
        run: Of the student.
        first: Whose images all get.
        method: Whose losses; None for the student's own.
        selection: All runs.
    """
    config = copy.deepcopy(run.config)
    config.val_dataloader = copy.deepcopy(first.config.val_dataloader)
    student = plain_model(config)
    if method is None:
        config.model = student
        return config
    model = with_present_teacher(method.config.model, selection.teacher_run)
    model.student = student
    losses = _losses(model)
    model.losses = [loss for loss in losses if not _of_features(loss)]
    if not model.losses:
        raise ValueError(
            f'{method.title} compares features alone, whose losses need what '
            'they learnt beside the student; name another with --losses-of'
        )
    config.model = model
    return config


def _losses(model: ConfigDict) -> list[ConfigDict]:
    losses = model.losses
    return [losses] if isinstance(losses, dict) else losses


def _of_features(loss: ConfigDict) -> bool:
    # New-style configs have the class itself.
    kind = loss['type']
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, FeatureLoss)


def _check_alike(shapes: Mapping[str, dict]) -> None:
    """Refuses students for which the directions would not be the same."""
    (first, own), *others = shapes.items()
    for title, other in others:
        if list(other.items()) != list(own.items()):
            name = next(
                name
                for name in [*own, *other]
                if own.get(name) != other.get(name)
            )
            raise ValueError(
                f'{first} and {title} have unlike weights ({name}: '
                f'{own.get(name)} and {other.get(name)}), so that no '
                'direction is the same in both; draw them one by one'
            )


def _grid(
    run: Run,
    model: nn.Module,
    config: Config,
    method: Run | None,
    args: argparse.Namespace,
) -> list[Row]:
    """The losses around the weights of a run, those of the file first."""
    meta = _load(model, run, method)
    progress = (max(meta.get(key, 0) - 1, 0) for key in ('epoch', 'iter'))
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    student = getattr(model, 'student', model)
    file = GridFile(
        _file(run, args),
        dict(
            losses=str(config.model.get('losses')),
            images=args.images,
            data=run.data,
            points=args.points,
            span=args.span,
            seed=args.seed,
            weights=digest(student.state_dict()),
        ),
    )
    if len(file) < args.points:
        dataset, *batches = held_out_batches(config, args.images)
        measure = HeldOutLoss(model, *batches, args.seed)
        with as_in_training(dataset, *progress), restored(student) as weights:
            _check_known(measure(), run, args.loss)
            fill(
                file,
                loss_of_model(student, measure),
                weights,
                random_directions(weights, args.seed),
                places(args.span, args.points),
                run.title,
            )
    rows = file.rows
    half = args.points // 2
    _check_known(rows[half][half], run, args.loss)
    return rows


def _load(model: nn.Module, run: Run, method: Run | None) -> dict:
    """Loads the weights; returns what says how far the losses' run was."""
    source = method or run
    # Of a distiller also what its losses have learnt.
    content = _loaded(model, source)
    if source is not run:
        _loaded(model.student, run)
    return content.get('meta') or {}


def _loaded(model: nn.Module, run: Run) -> dict:
    content = load_weights(model, run.checkpoint, run.title)
    if hasattr(model, 'load_learned_state'):
        model.load_learned_state(_without_connectors(learned_in(content), run))
    return content


def _without_connectors(
    learned: dict[str, Tensor], run: Run
) -> dict[str, Tensor]:
    """What the losses have learned that are not left out, numbered anew."""
    kept = [
        str(number)
        for number, loss in enumerate(_losses(run.config.model))
        if not _of_features(loss)
    ]
    split = [(key.partition('.'), value) for key, value in learned.items()]
    return {
        f'{kept.index(number)}.{name}': value
        for (number, _, name), value in split
        if number in kept
    }


def _file(run: Run, args: argparse.Namespace) -> Path:
    kind = TASK if args.loss == TASK else DISTILLATION
    label = run.label.replace('/', '-')
    return args.out / ROWS / f'{label}_{kind}.json'


def _check_known(losses: Mapping[str, float], run: Run, name: str) -> None:
    """Refuses a loss that is not there, or not a number."""
    if name not in losses:
        raise ValueError(
            f'--loss must be {TASK} or one of {", ".join(losses)}, got '
            f'{name!r}'
        )
    if not math.isfinite(losses[name]):
        raise ValueError(
            f'{name} of {run.title} is {losses[name]} at its own weights: '
            'there is no landscape around them'
        )
