"""How well a student follows its teacher on held-out images."""

import copy
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, SequentialSampler
from tqdm import tqdm

from mmrkkd.datasets import inner_datasets
from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.telemetry import agreement
from mmrkkd.registry import type_name

from .student_names import student_classes


@torch.no_grad()
def teacher_agreement(
    model: LogitDistiller,
    dataloader: DataLoader,
    progress: bool = True,
    class_names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Compares student and teacher on held-out images.

    Classifiers are compared on the images, two-stage detectors on the
    ground-truth boxes, dense ones on the cells that the teacher is surest
    of: these are the same for every student, so students of one teacher can
    be compared; the boxes that a student samples in training are its own. A
    cascade is compared by its last stage.

    Args:
        model: A distiller with the student's weights loaded.
        dataloader: Gives batches, for a detector with annotations, whose
            boxes are in the frame of the network's input, as
            :func:`held_out_loader` makes them.
        progress: Show a progress bar. Defaults to True.
        class_names: The student's, see :func:`student_classes`. Defaults to
            None: as the model knows them, or else those of the data.

    Returns:
        ``tau`` (mean exact Kendall tau-b, in [-1, 1]), ``top1_agreement``
        (in [0, 1]), ``kl`` (mean KL(teacher || student) at temperature 1,
        nats; of a sigmoid's classes their sum), and ``boxes``, ``images``
        or ``cells``, their number.

    Raises:
        TypeError: the model is no distiller.
        NotImplementedError: its reader cannot compare held-out images.
        ValueError: there is no box or image in the data.
    """
    if not isinstance(model, LogitDistiller):
        raise TypeError(
            'teacher_agreement needs a distiller, KDDetector or '
            f'KDClassifier, got {type(model).__name__}'
        )
    reader, student, teacher = model.reader, model.student, model.teacher.model
    was_training = model.training
    model.eval()
    pairs = []
    for batch in tqdm(dataloader, 'agreement', disable=not progress):
        batch = model.data_preprocessor(batch, False)
        inputs, samples = batch['inputs'], batch['data_samples']
        pair = reader.held_out(
            student,
            teacher,
            inputs,
            model.teacher_inputs(inputs, samples),
            samples,
        )
        if pair is not None:
            pairs.append(pair)
    model.train(was_training)
    if not pairs:
        raise ValueError(f'the data have no {reader.unit} to compare on')
    students, teachers = map(torch.cat, zip(*pairs, strict=True))
    class_map = model.class_map
    if class_map is None or class_names is not None:
        class_map = model.match_student_classes(
            class_names or student_classes(model, dataloader.dataset)
        )
    values = agreement(
        class_map.select_student(students),
        class_map.select_teacher(teachers),
        every_row=True,
        activation=reader.scores(student).activation,
    )
    result = {
        name.removeprefix('kd/'): float(value)
        for name, value in values.items()
    }
    return {**result, reader.unit: len(students)}


def held_out_loader(config: Config, masks: bool = False) -> DataLoader:
    """The test data of a config, boxes in the frame of the input.

    A detector's test pipeline resizes the image and leaves the annotations
    as they are; here they are loaded before it is resized. A classifier's
    data are what they are.

    Args:
        config: A config with ``test_dataloader``.
        masks: Load the masks of objects too, where its own pipeline does.
            Defaults to False.

    Returns:
        All samples in their order, in this process alone.
    """
    loader = copy.deepcopy(config.test_dataloader)
    for dataset in inner_datasets(loader.dataset):
        pipeline = dataset.get('pipeline') or [{}]
        if type_name(pipeline[-1]) == 'PackDetInputs':
            own = [step for step in pipeline if _loads_annotations(step)]
            boxes = dict(type='mmdet.LoadAnnotations', with_bbox=True)
            if masks and any(step.get('with_mask') for step in own):
                boxes['with_mask'] = True
            image, *others = (step for step in pipeline if step not in own)
            dataset['pipeline'] = [image, boxes, *others]
    dataset = loader.dataset
    if isinstance(dataset, dict):
        dataset = DATASETS.build(dataset)
    # MMEngine's samplers wait for all processes, which may not be there.
    loader.update(dataset=dataset, sampler=SequentialSampler(dataset))
    loader.pop('batch_sampler', None)
    return Runner.build_dataloader(loader)


def _loads_annotations(step: dict) -> bool:
    return type_name(step).endswith('LoadAnnotations')
