"""What a student and its teacher say of single held-out images."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import DataLoader

from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.class_names import names_of_head
from mmrkkd.ops import exact_kendall_tau

from .agreement import held_out_loader
from .evenly import evenly
from .student_names import student_classes
from .teacher_scores import teacher_predictions

BACKGROUND = 'background'
# What readers call their samples where these are annotated.
ON_OBJECTS = ('boxes', 'images')


@dataclass
class ImageScores:
    """Both models on one image.

    Args:
        path: The image.
        student: (R, C), probabilities of the classes, of R boxes, cells or
            queries, or of the image (R = 1).
        teacher: (R, C), of the same.
        logits: Both before softmax or sigmoid, the student's first.
        tau: (R, ), exact Kendall tau-b of the two in [-1, 1], NaN where a
            side is constant.
        boxes: (O, 4), left, top, right, bottom of each object in pixels of
            the image; None of a classifier.
        labels: The O true classes; of a classifier one.
        on_objects: Whether the rows are these objects, or this image.
        found: What each predicts: 'student' and 'teacher' to ``boxes``,
            ``labels`` and ``scores``; {} of a classifier, or not asked.
    """

    path: str
    student: np.ndarray
    teacher: np.ndarray
    logits: tuple[np.ndarray, np.ndarray]
    tau: np.ndarray
    boxes: np.ndarray | None
    labels: list[str]
    on_objects: bool
    found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


class Scored(NamedTuple):
    """What a student and its teacher say of some images.

    Args:
        names: The compared classes.
        data_names: The classes of the data.
        pictures: Name of an image to its file, or its pixels.
        images: The evenly spaced images, by name.
        extra: Those that were asked for, by name.
        whole: Whether ``images`` are the whole validation set.
        activation: Of the logits, 'softmax' or 'sigmoid'.
    """

    names: list[str]
    data_names: tuple[str, ...]
    pictures: dict[str, object]
    images: dict[str, ImageScores]
    extra: dict[str, ImageScores]
    whole: bool
    activation: str = 'softmax'


class ScoredImages:
    """The validation images of a distillation, scored one by one.

    ``pictures`` is the name of each image to its file, or to its pixels
    (H, W, 3) where the data set has no files; ``places`` its name to its
    index in the data set, the last of an image that is there twice;
    ``names`` are those of the compared channels, ``data_names`` those that
    labels count; ``activation`` is that of the logits.

    Args:
        model: A distiller with the student's weights loaded.
        config: With ``test_dataloader``.
        content: The student's checkpoint, which may state class names.
    """

    def __init__(
        self, model: LogitDistiller, config: Config, content: dict
    ) -> None:
        self.model = model.eval()
        self.loader: DataLoader = held_out_loader(config)
        dataset = self.loader.dataset
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        self.pictures, self.places = {}, {}
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            path = info.get('img_path')
            name = os.path.abspath(path) if path else f'image {index}'
            self.pictures[name] = info['img'] if path is None else name
            self.places[name] = index
        self.paths = list(self.pictures)
        names = student_classes(model, dataset, config, content)
        self.map = model.match_student_classes(names)
        self.names = _compared(model, self.map, names)
        self.activation = model.reader.scores(model.student).activation
        self.data_names = tuple(dataset.metainfo.get('classes') or names)

    def evenly(self, count: int) -> list[str]:
        """So many images, evenly spaced over the set."""
        return [self.paths[place] for place in evenly(len(self.paths), count)]

    @torch.no_grad()
    def score(
        self, paths: Iterable[str], detect: bool = True
    ) -> Iterator[ImageScores]:
        """Runs both models on images of the set.

        Args:
            paths: Names of images.
            detect: Also let detectors predict. Defaults to True.

        Raises:
            ValueError: an image is not of the set.
        """
        for path in paths:
            if path not in self.places:
                raise ValueError(
                    f'{path} is none of the {len(self.places)} images of the '
                    'validation set'
                )
            item = self.loader.dataset[self.places[path]]
            yield self._scored(path, self.loader.collate_fn([item]), detect)

    def _scored(self, path: str, batch: dict, detect: bool) -> ImageScores:
        model = self.model
        data = model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        pair = model.reader.held_out(
            model.student,
            model.teacher.model,
            inputs,
            model.teacher_inputs(inputs, samples),
            samples,
        )
        if pair is None:
            channels = len(self.names)
            pair = inputs.new_zeros(0, channels), inputs.new_zeros(0, channels)
        else:
            pair = (
                self.map.select_student(pair[0].float()),
                self.map.select_teacher(pair[1].float()),
            )
        boxes, labels = _truth(samples[0])
        sigmoid = self.activation == 'sigmoid'
        student, teacher = (
            (logits.sigmoid() if sigmoid else logits.softmax(-1))
            for logits in pair
        )
        return ImageScores(
            path,
            student.cpu().numpy(),
            teacher.cpu().numpy(),
            tuple(logits.cpu().numpy() for logits in pair),
            exact_kendall_tau(*pair).cpu().numpy(),
            boxes,
            [self.data_names[label] for label in labels],
            model.reader.unit in ON_OBJECTS,
            self._found(batch) if detect and boxes is not None else {},
        )

    def _found(self, batch: dict) -> dict:
        (student,) = self.model.val_step(batch)
        found = dict(student=_detections(student))
        ((_, (teacher,)),) = teacher_predictions(self.model, [batch], self.map)
        return dict(found, teacher=_detections(teacher))


def _detections(sample: object) -> tuple[np.ndarray, ...]:
    """Boxes, labels and scores that were predicted."""
    found = sample.pred_instances
    return tuple(
        _plain(values).cpu().numpy()
        for values in (found.bboxes, found.labels, found.scores)
    )


def _plain(values: object) -> Tensor:
    """MMDetection's box types hold a tensor."""
    return getattr(values, 'tensor', values)


def _truth(sample: object) -> tuple[np.ndarray | None, Sequence[int]]:
    """Boxes in pixels of the image, None without, and labels."""
    truth = getattr(sample, 'gt_instances', None)
    if truth is None:
        return None, sample.gt_label.reshape(-1).tolist()
    boxes = _plain(truth.bboxes).float().cpu()
    wide, high = sample.scale_factor[:2]
    scale = boxes.new_tensor([wide, high, wide, high])
    return (boxes / scale).numpy(), truth.labels.tolist()


def _compared(
    model: LogitDistiller, class_map: object, names: Sequence[str] | None
) -> list[str]:
    """The names of the compared channels."""
    scores = model.reader.scores(model.student)
    if names is None:
        names = [f'class {index}' for index in range(scores.classes)]
    names = names_of_head(names, scores.classes)
    names = [*names, *[BACKGROUND] * scores.background]
    if class_map.student is None:
        return names
    return [names[channel] for channel in class_map.student]
