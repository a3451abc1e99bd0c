"""The student's class names, where no training is running."""

import logging
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmrkkd.datasets.check_data import dataset_class, inner_datasets
from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.class_names import metainfo_classes


def student_classes(
    model: LogitDistiller,
    dataset: object,
    config: Config | None = None,
    checkpoint: dict | None = None,
) -> tuple[str, ...] | None:
    """Which classes the student's channels are.

    They are those it was trained on: the model's ``class_names``, those of
    the config's training set, or those in the student's checkpoint. The
    data that it is evaluated on may list them in another order, and are
    asked last.

    Args:
        model: The distiller.
        dataset: What it is evaluated on.
        config: The whole config. Its training set is not built; one whose
            names are those of its folders states none. Defaults to None.
        checkpoint: What the student's holds. Defaults to None.

    Returns:
        The names, None where nothing states them. The log says where they
        are from.

    Raises:
        ValueError: see :func:`mmrkkd.distillers.class_names.metainfo_classes`.
    """
    for place, meta in _stated(model, dataset, config, checkpoint):
        names = metainfo_classes(f'the class names of {place}', meta)
        if names is not None:
            print_log(
                f"The student's class names are those of {place}.",
                logger='current',
            )
            return names
    print_log(
        "The student's class names are not known: its channels and the "
        "teacher's are matched by position. Give class_names=[...] to the "
        'model to have them compared.',
        logger='current',
        level=logging.WARNING,
    )
    return None


def _stated(
    model: LogitDistiller,
    dataset: object,
    config: Config | None,
    checkpoint: dict | None,
) -> Iterator[tuple[str, object]]:
    """Places and what they state, the surest first."""
    yield "the model's class_names", model.class_names
    yield "the config's training set", _training_metainfo(config or {})
    meta = (checkpoint or {}).get('meta') or {}
    yield "the student's checkpoint", meta.get('dataset_meta') or meta
    yield 'the evaluated data set', getattr(dataset, 'metainfo', None)


def _training_metainfo(config: Config | dict) -> list[dict]:
    """What the training set's parts state without their data."""
    loader = config.get('train_dataloader') or {}
    parts = []
    for dataset in inner_datasets(loader.get('dataset')):
        kind = dataset_class(dataset, config.get('default_scope'))
        if kind is not None and issubclass(kind, BaseDataset):
            own = dict(dataset.get('metainfo') or {})
            # MMPretrain's older argument.
            if dataset.get('classes') is not None:
                own = dict(classes=dataset['classes'], **own)
            parts.append(kind._load_metainfo(own))
    return parts
