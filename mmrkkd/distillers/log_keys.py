"""No two losses of a run may be logged under the same key."""

from collections.abc import Sequence

from torch import nn

from mmrkkd.losses import LOSSES, LSKDLoss, RankKDLoss
from mmrkkd.losses.feature import FeatureLoss

OF_LOGITS = (
    'use each type of loss once. RankKDLoss has a KD loss inside, which its '
    'kd=... chooses, and the ranking of KendallLoss; KendallLoss is the '
    'ranking alone'
)
OF_FEATURES = (
    'give one loss of this type all the layers, student_layers=[...] and '
    'teacher_layers=[...]'
)


def refuse_repeated_keys(losses: Sequence[nn.Module]) -> None:
    """Refuses losses of which two have terms of the same log key.

    Of this package's losses alone, whose keys are those of their type;
    others are looked at in the first step.

    Args:
        losses: Those of a distiller.

    Raises:
        ValueError: a type is there twice, by itself or inside of another.
    """
    places: dict[type, int] = {}
    for place, loss in enumerate(losses):
        for kind in _logged_by(loss):
            if kind not in LOSSES.values():
                continue
            if kind in places:
                first = places[kind]
                raise ValueError(
                    f'losses[{first}] ({type(losses[first]).__name__}) and '
                    f'losses[{place}] ({type(loss).__name__}) are logged '
                    f'under the same key, that of {kind.__name__}: '
                    + (
                        OF_FEATURES
                        if issubclass(kind, FeatureLoss)
                        else OF_LOGITS
                    )
                )
            places[kind] = place


def _logged_by(loss: nn.Module) -> list[type]:
    """The types whose log keys a loss has."""
    if isinstance(loss, RankKDLoss):
        return [*_logged_by(loss.kd), type(loss.rank)]
    if isinstance(loss, LSKDLoss):
        return _logged_by(loss.kd)
    return [type(loss)]
