"""Runs the models of finished runs on held-out images."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from tqdm import tqdm

from mmrkkd.engine import prepare_model
from mmrkkd.evaluation.comparison import comparison_config
from mmrkkd.evaluation.image_scores import Scored, ScoredImages
from mmrkkd.evaluation.weights import load_weights
from mmrkkd.report.runs import Run, firsts


def score_runs(
    runs: Sequence[Run],
    teacher_run: Run | None,
    count: int,
    extra: Sequence[str] = (),
    detect: bool = True,
    trust: bool = False,
    asked: str = '--scores',
) -> dict[str, Scored]:
    """Scores the first run of each label beside its teacher.

    A student that was trained alone is compared with the teacher of the
    first distillation.

    Args:
        runs: The students' runs.
        teacher_run: The run that made the teacher, if it is among them.
        count: How many images, evenly spaced over the validation set.
        extra: Files of more images of the set.
        detect: Also let detectors predict. Defaults to True.
        trust: Read checkpoints that can run code. Defaults to False.
        asked: What asks for it, for messages; an option can be left out.
            Defaults to '--scores'.

    Raises:
        FileNotFoundError: the weights or the data are not there.
        ValueError: no run has a teacher.
    """
    leave = f', or leave {asked} out' if asked.startswith('--') else ''
    taught = [run for run in runs if run.distils]
    if not taught:
        raise ValueError(
            f'{asked} compares students with their teacher, and none of the '
            f'runs {", ".join(run.title for run in runs)} has one; give a '
            f'distillation too{leave}'
        )
    by_label = firsts(runs)
    for run in by_label.values():
        if run.checkpoint is None:
            raise FileNotFoundError(
                f'{asked} needs the weights of {run.title}, and {run.folder} '
                f'holds no checkpoint; put it back{leave}'
            )
    # Initialisation is told parameter by parameter.
    MMLogger.get_instance('report', log_level='WARNING')
    model = with_present_teacher(taught[0].config.model, teacher_run)
    scored = {}
    for label, run in by_label.items():
        config = copy.deepcopy(run.config)
        if run.distils:
            config.model = with_present_teacher(config.model, teacher_run)
        config = comparison_config(config, model)
        scored[label] = _score(run, config, count, extra, detect, trust)
    return scored


def with_present_teacher(
    model: ConfigDict, teacher_run: Run | None
) -> ConfigDict:
    """The model with its teacher's weights where they are now."""
    model = copy.deepcopy(model)
    path = Path(model.teacher.checkpoint)
    if teacher_run is not None and not path.is_file():
        model.teacher.checkpoint = str(teacher_run.folder / path.name)
    return model


def _score(
    run: Run,
    config: Config,
    count: int,
    extra: Sequence[str],
    detect: bool,
    trust: bool,
) -> Scored:
    with prepare_model(config, 'test_dataloader', trust) as model:
        content = load_weights(model, run.checkpoint, run.title)
        model.to('cuda' if torch.cuda.is_available() else 'cpu')
        scored = ScoredImages(model, config, content)
        evenly = scored.evenly(count)
        asked = [os.path.abspath(path) for path in extra]
        paths = list(dict.fromkeys([*evenly, *asked]))
        done = {
            each.path: each
            for each in tqdm(
                scored.score(paths, detect), run.title, len(paths)
            )
        }
    return Scored(
        scored.names,
        scored.data_names,
        scored.pictures,
        {path: done[path] for path in evenly},
        {path: done[path] for path in asked},
        len(evenly) == len(scored.paths),
        scored.activation,
    )
