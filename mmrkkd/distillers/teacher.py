"""The teacher: built, loaded strictly, frozen, and kept out of the student."""

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmrkkd.checkpoint.fetch import (
    fetch_checkpoint,
    file_sha256,
    read_checkpoint,
)
from mmrkkd.checkpoint.key_names import prefix_advice, without_prefix
from mmrkkd.checkpoint.random_state import cpu_random_state_kept
from mmrkkd.ops.checks import check_options
from mmrkkd.registry import MODELS

from .class_names import checkpoint_classes, names_in_order
from .frozen_teacher import FrozenTeacher
from .inference import TeacherEngine
from .model_config import plain_model

KEYS_SHOWN = 200


def build_teacher(
    config: str | Path | dict,
    checkpoint: str | Path | None = None,
    sha256: str | None = None,
    classes: Sequence[str] | None = None,
    allow_random_weights: bool = False,
    trust_checkpoint: bool = False,
    precision: str = 'auto',
    compile: bool = False,
    stream: bool = True,
) -> FrozenTeacher:
    """Builds a teacher and loads every one of its weights, or stops.

    The random state of the process is left as it was found, so a run with
    a teacher starts from the same student weights as one without.

    Args:
        config: A config file's path, a name such as
            'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', a whole
            config as a dict, or its ``model`` part.
        checkpoint: Path or https URL of its weights.
        sha256: Expected SHA-256 of the checkpoint, at least 8 digits.
        classes: Its class names, a list in the order of its channels; by
            default those that the checkpoint states.
        allow_random_weights: Go on without a checkpoint, for tests and
            benchmarks of speed. The weights are those that the model is
            built with, without ``init_weights``: some of Deformable DETR's
            are whatever the memory held. Defaults to False.
        trust_checkpoint: Read a checkpoint that holds more than weights,
            which may run code. Defaults to False.
        precision: 'auto', 'float32', 'bfloat16' or 'float16', see
            :class:`~mmrkkd.distillers.inference.TeacherEngine`. 'auto'
            keeps random weights in float32. Defaults to 'auto'.
        compile: Compile backbone and neck. Defaults to False.
        stream: Compute features beside the student's forward, on CUDA.
            Defaults to True.

    Returns:
        The frozen teacher, on the CPU.

    Raises:
        FileNotFoundError: config or checkpoint is not there.
        ValueError: there is no checkpoint, or it does not fit; the message
            lists every missing and every wrongly shaped key. Or the class
            names have no order, or the precision is unknown.
    """
    if checkpoint is None and precision == 'auto':
        # Such a teacher measures steps; its logits are noise to compare.
        precision = 'float32'
    engine = TeacherEngine(precision, compile, stream)
    classes = names_in_order('teacher.classes', classes)
    config = read_teacher_config(config)
    if checkpoint is None and not allow_random_weights:
        raise ValueError(
            'teacher.checkpoint is missing: a teacher with random weights '
            'teaches noise. Give a path or an https URL, or set '
            'teacher.allow_random_weights=True if that is what you want'
        )
    scope = config.get('default_scope')
    # Weights are made on the CPU: no other device's generator is used.
    with cpu_random_state_kept(), DefaultScope.overwrite_default_scope(scope):
        # Detectors write into the config that they are built from.
        model = MODELS.build(copy.deepcopy(config.model))
    if checkpoint is None:
        print_log(
            'The teacher has RANDOM weights (allow_random_weights=True).',
            logger='current',
            level=logging.WARNING,
        )
        return FrozenTeacher(model, classes, 'random weights', engine=engine)
    path = fetch_checkpoint(checkpoint, sha256)
    content = read_checkpoint(path, trust_checkpoint)
    load_strictly(model, content['state_dict'], str(path))
    digest = file_sha256(path)
    if classes is None:
        classes = _stated_classes(content)
    return FrozenTeacher(
        model,
        classes,
        f'{path} (sha256 {digest[:16]})',
        digest,
        engine,
    )


def _stated_classes(content: dict) -> Sequence[str] | None:
    classes = checkpoint_classes(content)
    if classes is None:
        print_log(
            "The teacher's checkpoint states no class names: channels of "
            'teacher and student are matched by position. Give '
            'teacher.classes=[...] to have them compared.',
            logger='current',
            level=logging.WARNING,
        )
    return classes


def check_teacher(teacher: dict) -> dict:
    """Refuses what is not a dict of arguments for :func:`build_teacher`.

    Args:
        teacher: What a config states as ``teacher``.

    Returns:
        The same.

    Raises:
        TypeError: it is no dict, has no config, or an unknown key; the
            message suggests the nearest one.
    """
    if not isinstance(teacher, dict):
        raise TypeError(
            'teacher must be a dict, teacher=dict(config=..., '
            f'checkpoint=...), got {teacher!r:.200}'
        )
    check_options('teacher', build_teacher, teacher)
    if 'config' not in teacher:
        raise TypeError(
            'teacher.config is missing: give the path of a config file or '
            f'a dict; teacher has the keys {sorted(teacher)}'
        )
    return teacher


def read_teacher_config(config: str | Path | dict) -> ConfigDict:
    """Brings the ways to name a teacher's config into one form.

    Returns:
        A config with ``model``, and ``default_scope`` where it has one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no model in it.
    """
    if isinstance(config, (str, Path)):
        config = _read_config_file(str(config))
    config = ConfigDict(config)
    if 'model' not in config and 'type' in config:
        config = ConfigDict(model=config)
    if 'model' not in config:
        raise ValueError(
            'teacher.config must be a config with a model, or a model with a '
            f'type; it has the keys {sorted(config)}'
        )
    # The checkpoint of a teacher that was itself distilled is its plain
    # student's.
    config.model = plain_model(config)
    return config


def _read_config_file(name: str) -> dict:
    if '::' in name:
        # Inheritance is MMEngine's public way to a config of an installed
        # package.
        text = f'_base_ = {name!r}'
        return Config.fromstring(text, '.py')._cfg_dict
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'teacher.config {name!r} does not exist (looked for '
            f'{path.absolute()}); give the path of a config file or a name '
            "like 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'"
        )
    return Config.fromfile(str(path))._cfg_dict


def load_strictly(
    model: nn.Module,
    weights: dict[str, Tensor],
    source: str,
    checkpoint: str = 'teacher.checkpoint',
    config: str = 'teacher.config',
) -> None:
    """Loads weights that fit entirely, or changes nothing.

    A prefix of another tool that all keys share is taken off; a module that
    knows old names or other shapes of its weights (positions of another
    image size) makes them its own, which the log says. Keys that the model
    does not have (a head of another task, optimizer copies) are named in the
    log; a BatchNorm's count of batches may be missing, as old
    checkpoints lack it and inference does not use it.

    Args:
        model: The model to load into.
        weights: Key to tensor.
        source: Where they come from, for the messages.
        checkpoint: What that is called in them.
        config: What the model's config is called in them.

    Raises:
        ValueError: keys are missing or have another shape; all are listed.
    """
    own = model.state_dict()
    weights, prefix = without_prefix(weights, own)
    if prefix:
        print_log(
            f'{checkpoint} {source}: {prefix!r} was taken off the names of '
            'its weights.',
            logger='current',
        )
    missing = [
        key for key in own if key not in weights and not may_be_missing(key)
    ]
    misshapen = [
        f'{key}: the model has {tuple(own[key].shape)}, the checkpoint '
        f'{tuple(weights[key].shape)}'
        for key in own
        if key in weights and own[key].shape != weights[key].shape
    ]
    unknown = [key for key in weights if key not in own]
    not_used = _loaded(model, weights)
    if not_used is None:
        raise ValueError(
            f'{checkpoint} {source} does not fit {config}.'
            + _listed('Missing keys', missing)
            + _listed('Keys of another shape', misshapen)
            + _listed('Keys that the model does not have', unknown)
            + '\nCheck that config and checkpoint belong together.'
            + prefix_advice(weights, own)
        )
    if missing or misshapen:
        print_log(
            f'{checkpoint} {source} was adapted by the modules that load it.'
            + _listed('Keys that had another name', missing)
            + _listed('Keys that had another shape', misshapen),
            logger='current',
            level=logging.WARNING,
        )
    if not_used:
        print_log(
            f'{checkpoint} {source}:'
            + _listed('keys that the model does not have, not used', not_used),
            logger='current',
            level=logging.WARNING,
        )


def _loaded(model: nn.Module, weights: dict[str, Tensor]) -> list[str] | None:
    """Loads weights, which modules may rename or reshape meanwhile.

    Returns:
        The keys that no module takes; None, and the model is left as it
        was, if the weights do not fit.
    """
    before = {k: v.clone() for k, v in model.state_dict().items()}
    # Of shapes that differ, which strict=False does not allow either.
    with suppress(RuntimeError):
        found = model.load_state_dict(weights, strict=False)
        if all(map(may_be_missing, found.missing_keys)):
            return found.unexpected_keys
    model.load_state_dict(before)
    return None


def may_be_missing(key: str) -> bool:
    """Of a weight: old checkpoints lack it, and inference does without."""
    return key.endswith('num_batches_tracked')


def _listed(title: str, keys: list[str]) -> str:
    if not keys:
        return ''
    shown = keys[:KEYS_SHOWN]
    more = len(keys) - len(shown)
    lines = ''.join(f'\n  {key}' for key in shown)
    return f'\n{title} ({len(keys)}):{lines}' + (
        f'\n  ... and {more} more' if more else ''
    )
