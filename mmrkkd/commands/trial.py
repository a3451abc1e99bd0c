"""What a distillation is about to do: its settings, and one batch."""

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from torch import nn

from mmrkkd.engine import prepare_model
from mmrkkd.evaluation.trial_steps import (
    as_in_training,
    mean_terms,
    training_batches,
)
from mmrkkd.registry import type_name

from .work_dir import RUN, STUDENT
from .wrapping import Distillation


def described(plan: Distillation) -> str:
    """The effective settings, for whoever looks on."""
    config, model = plan.config, plan.config.model
    train = config.get('train_cfg') or {}
    length = ' '.join(
        f'{train[key]} {unit}'
        for key, unit in (('max_epochs', 'epochs'), ('max_iters', 'steps'))
        if train.get(key)
    )
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    lines = [
        f'student: {model.student.type}, {config.filename}',
        f'teacher: {_named(model.teacher.config)}, {model.teacher.checkpoint}',
        f'method: {plan.method.name} for a {plan.kind}, {plan.method.source}',
        *(f'loss: {_shown(loss)}' for loss in _listed(model.losses)),
        *(
            [f'matching: {_shown(model.matching)}']
            if 'matching' in model
            else []
        ),
        f'task_weight: {_shown(model.task_weight)}',
        f'training: {length}, {batch} images a step and process',
        f'work directory: {config.work_dir}',
        f'  {RUN}: this run, to edit and to run again (mmrkkd train)',
        f'  {STUDENT}.pth, {STUDENT}.py: the plain student, when it has ended',
    ]
    return '\n'.join(['Distillation', *(f'  {line}' for line in lines)])


def _named(config: str | dict) -> str:
    return config if isinstance(config, str) else 'a config given as a dict'


def _listed(losses: dict | list) -> list:
    return [losses] if isinstance(losses, dict) else losses


def _shown(value: object) -> object:
    return value.to_dict() if isinstance(value, ConfigDict) else value


def _initialise(student: nn.Module) -> None:
    """Initialises as a training does, but for weights that it would fetch.

    Some heads are nothing without: the learned proposals of Sparse R-CNN
    are boxes of a negative size.
    """
    for part in student.modules():
        settings = getattr(part, 'init_cfg', None) or []
        steps = settings if isinstance(settings, list) else [settings]
        if any(type_name(step) == 'Pretrained' for step in steps):
            others = [
                step for step in steps if type_name(step) != 'Pretrained'
            ]
            # Some backbones ask for None.
            part.init_cfg = others or None
    student.init_weights()


def try_first_batch(config: Config, trust: bool = False) -> None:
    """Builds both models, takes a batch through them and prints the terms.

    Args:
        config: Of a distillation; its data sets are changed in place.
        trust: See :func:`mmrkkd.engine.prepare_run`. Defaults to False.
    """
    # Initialisation is told parameter by parameter.
    MMLogger.get_instance('dry_run', log_level='WARNING')
    with prepare_model(config, 'train_dataloader', trust) as model:
        _initialise(model.student)
        model.to('cuda' if torch.cuda.is_available() else 'cpu')
        print(f'\n{model.settings()}', flush=True)
        dataset, batches = training_batches(config, 1)
        with as_in_training(dataset):
            terms = mean_terms(model, batches)
    lines = [f'  {key}: {value:.4g}' for key, value in terms.items()]
    print('\n'.join(['\nOne batch, weights of the student random', *lines]))
    print('\nDry run: nothing was written.')
