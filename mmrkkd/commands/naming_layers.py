"""How layers that do not fit are named on the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmrkkd.losses.feature.base import LayersError
from mmrkkd.registry import type_name

from .wrapping import Distillation


class CrossingError(ValueError):
    """The heads of two models are not crossed at one layer."""


@contextmanager
def saying_how_to_name_layers(plan: Distillation) -> Iterator[None]:
    """Tells of layers that do not fit how others are named.

    A method has those of the models that it was published with.

    Args:
        plan: The distillation.

    Raises:
        LayersError: one was raised inside; with the settings that name the
            layers of its loss.
        CrossingError: the two heads are not crossed at one layer; with the
            method, and the settings that name it.
    """
    model = plan.config.model
    try:
        yield
    except LayersError as error:
        key, layer = 'model.losses', 'backbone.layer3'
        if isinstance(model.losses, list):
            key += f'.{_place(model.losses, error.loss)}'
        if error.loss.needs_statistics:
            layer = 'before backbone.layer4.1.relu[1]'
        raise LayersError(
            f'{error}. Layers are named by --cfg-options '
            f'"{key}.student_layers=[\'{layer}\']" and '
            f'{key}.teacher_layers in the same way (docs/en/features.md)',
            error.loss,
        ) from error
    except ValueError as error:
        named = _crossings(model.get('matching'))
        if not str(error).startswith(tuple(f'{key}=' for key in named)):
            raise
        options = ' '.join(
            f'model.matching.{key}={layer}' for key, layer in named.items()
        )
        raise CrossingError(
            f'--method {plan.method.name}: {error}. Layers are named by '
            f'--cfg-options {options}'
        ) from error


def _crossings(matching: str | dict | None) -> dict[str, str]:
    """The options that say where heads are crossed, each with a layer."""
    if not isinstance(matching, dict) or 'cross_layer' not in matching:
        return {}
    if matching.get('type') == 'rois':
        return dict(cross_layer='shared_fcs.0')
    named = dict(cross_layer='cls_convs.2.activate')
    if 'cross_box_layer' in matching:
        named['cross_box_layer'] = 'reg_convs.2.activate'
    return named


def _place(losses: list[dict], loss: object) -> int:
    """Where a loss stands among the configs of losses."""
    names = [type_name(each) for each in losses]
    return names.index(type(loss).__name__)
