"""How a teacher and a student differ, in words."""

import os
from collections.abc import Iterator, Sequence

import torch
from mmengine.config import Config
from torch import nn

from mmrkkd.cli import load_config
from mmrkkd.datasets import inner_datasets
from mmrkkd.distillers import LogitDistiller
from mmrkkd.evaluation.trial_steps import Cost
from mmrkkd.registry import type_name

RESIZING = ('Resize', 'ResizeEdge', 'RandomResize', 'CenterCrop')


def class_line(model: LogitDistiller, names: Sequence[str] | None) -> str:
    """Whether the class names agree, and in which order."""
    teacher, chosen = model.teacher.classes, model.class_map
    scores = model.reader.scores(model.student)
    if names is None or teacher is None:
        owner = 'teacher' if teacher is None else 'student'
        return (
            f'{scores.classes}; the names of the {owner} are not known: '
            'matched by position'
        )
    if chosen.student is None:
        return f'{scores.classes}, the same names in the same order'
    shared = len(chosen.student) - scores.background
    if shared == len(names) == len(teacher):
        return (
            f'{shared}, the same names in another order: the channels of the '
            'teacher are permuted'
        )
    return f'{shared} of {len(names)} are distilled, the teacher knows them'


def input_lines(
    model: LogitDistiller, teacher: str | os.PathLike, config: Config
) -> Iterator[str]:
    """What differs in preprocessing, and what is done about it."""
    yield model.input_settings()
    if not model.bridge.is_identity:
        yield f'student: {_normalisation(model.student.data_preprocessor)}'
        yield (
            f'teacher: {_normalisation(model.teacher.model.data_preprocessor)}'
        )
    sizes = [_sizes(config), _sizes(load_config(teacher))]
    if sizes[0] != sizes[1]:
        yield (
            f'the data are made by {sizes[0]}, those that the teacher was '
            f'validated on by {sizes[1]}: it sees the former'
        )


def _normalisation(preprocessor: nn.Module) -> str:
    if not getattr(preprocessor, '_enable_normalize', False):
        values = 'raw pixels'
    else:
        mean, std = (
            [
                round(value, 2)
                for value in getattr(preprocessor, name).flatten().tolist()
            ]
            for name in ('mean', 'std')
        )
        values = f'mean {mean}, std {std}'
    swaps = getattr(preprocessor, '_channel_conversion', False) or getattr(
        preprocessor, 'to_rgb', False
    )
    divisor = getattr(preprocessor, 'pad_size_divisor', 1)
    return (
        f'{values}, {"channels swapped" if swaps else "channels as loaded"}, '
        f'padded to multiples of {divisor}'
    )


def _sizes(config: Config) -> str:
    """The steps of the validation pipeline that decide about the size."""
    loader = config.get('val_dataloader') or {}
    for dataset in inner_datasets(loader.get('dataset')):
        steps = [
            f'{type_name(step)} '
            + str(step.get('scale', step.get('crop_size', '')))
            for step in dataset.get('pipeline') or ()
            if type_name(step) in RESIZING
        ]
        return ', '.join(steps) or 'no resizing'
    return 'no resizing'


def ranking_line(terms: dict[str, float], batches: int) -> str:
    """How far apart the two are in the order of the classes."""
    told = ', '.join(
        f'{key.replace("kd/", "")} {value:.3f}'
        for key, value in terms.items()
        if key.endswith(('kd/tau', 'kd/top1_agreement', 'kd/kl'))
    )
    return (
        f'{told or "nothing is compared"} (a student with its initial '
        f'weights, {batches} training batches)'
    )


def cost_lines(costs: tuple[Cost, Cost]) -> Iterator[str]:
    """What a step takes with and without the teacher."""
    alone, distilled = costs
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f'CPU, {torch.get_num_threads()} threads'
    )
    yield (
        f'{distilled.seconds:.3g} s with the teacher, {alone.seconds:.3g} s '
        f'without: {distilled.seconds / alone.seconds:.2f} times ({device}; '
        'forward and backward)'
    )
    if None in (alone.megabytes, distilled.megabytes):
        yield 'its memory cannot be measured on this system'
    else:
        yield (
            f'{distilled.megabytes:.0f} MB with the teacher, '
            f'{alone.megabytes:.0f} MB without, beyond the models themselves'
        )
