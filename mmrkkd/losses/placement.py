"""Which of a head's samples a loss is for, as its config states it."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from torch import Tensor

from mmrkkd.ops.checks import check_choice, check_positive

LOCATIONS = ('all', 'foreground', 'confidence', 'top')
NORMALIZERS = ('weight', 'positives')
# Most samples are left out of these.
FEW = ('foreground', 'top')


@dataclass(frozen=True)
class Placement:
    """Where a loss applies, and what its sum is divided by.

    ::

        losses = [
            dict(type='BinaryKDLoss', normalizer='positives'),
            dict(type='KendallLoss', locations='top', top=0.01),
        ]

    These keys may stand in the config of every logit loss.

    Args:
        locations: 'all'; 'foreground', samples labelled with a class;
            'confidence', all, each weighted by the teacher's highest
            probability of a class; 'top', the same for the share ``top`` of
            each image's samples that have the highest. Defaults to None:
            what ``matching`` says.
        top: The share, in (0, 1]. Defaults to 0.01.
        normalizer: 'weight', a mean over the weights of the samples;
            'positives', a sum divided by the number of positives of the
            batch, where the head has such a number. Defaults to None: what
            the loss was published with.
    """

    locations: str | None = None
    top: float = 0.01
    normalizer: str | None = None

    def __post_init__(self) -> None:
        if self.locations is not None:
            check_choice('locations', self.locations, LOCATIONS)
        if check_positive('top', self.top) > 1:
            raise ValueError(f'top must be in (0, 1], got {self.top!r}')
        if self.normalizer is not None:
            check_choice('normalizer', self.normalizer, NORMALIZERS)

    def __str__(self) -> str:
        parts = []
        if self.locations is not None:
            share = f' {self.top:.2%}' if self.locations == 'top' else ''
            parts.append(f'at {self.locations}{share}')
        if self.normalizer is not None:
            parts.append(f'divided by {self.normalizer}')
        return ', '.join(parts)


OPTIONS = tuple(each.name for each in fields(Placement))
Select = Callable[..., tuple]


class Placed:
    """Of a loss: which scores it is for, and where among them it applies.

    ``activations`` are the kinds of scores that the loss is for, and
    ``default_normalizer`` is what it was published with, as is
    ``default_locations`` where it has some. ``asks_for`` names what
    :meth:`located` gets besides of a detector's samples: 'groups', the
    object that each is a candidate of, 'bins', the distributions of the
    sides of its box, or 'boxes'.
    """

    activations: tuple[str, ...] = ('softmax',)
    default_normalizer = 'weight'
    default_locations: str | None = None
    asks_for: tuple[str, ...] = ()
    placement = Placement()

    @property
    def applies_at(self) -> str | None:
        """Where the loss applies: as stated, else as published."""
        return self.placement.locations or self.default_locations

    def place(self, **options: object) -> None:
        """Says where the loss applies; see :class:`Placement`."""
        self.placement = replace(self.placement, **options)

    def suit(self, activation: str) -> None:
        """Refuses scores that the loss is not for.

        Args:
            activation: Of the scores, 'softmax' or 'sigmoid'.

        Raises:
            TypeError: they are no probabilities of this kind; the message
                names a loss for them.
        """
        name = type(self).__name__
        if activation in self.activations:
            return
        if activation == 'softmax':
            raise TypeError(
                f'{name} is for scores that a sigmoid decides one by one, '
                'and this head has a softmax over its classes; use KDLoss'
            )
        # The classes of an object exclude each other; this form is LD's.
        if self.placement.locations != 'foreground':
            raise TypeError(
                f'{name} compares probabilities of a softmax, and this head '
                'decides each class by a sigmoid: use BinaryKDLoss or '
                "BinaryKLLoss, or set locations='foreground' on "
                f'{name} to compare the classes of objects alone'
            )

    def located(self, select: Select) -> dict[str, Tensor]:
        """The terms where the loss applies.

        Args:
            select: Gives for a :class:`Placement` what :meth:`forward`
                takes: logits, labels, weight and normalizer. A function
                of both logits may follow, (N,), that multiplies the weight.
        """
        placement = replace(self.placement, locations=self.applies_at)
        if placement.normalizer is None:
            placement = replace(placement, normalizer=self.default_normalizer)
        return self(*select(placement))

    def __repr__(self) -> str:
        text = super().__repr__()
        return f'{text} {self.placement}' if str(self.placement) else text
