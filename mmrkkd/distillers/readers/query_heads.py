"""Where the predictions of a query head stand, and what they mean.

Heads are known by the names of their classes, and a subclass is what its
nearest known ancestor is.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkkd.ops.checks import check_choice

from .base import ACTIVATIONS, Scores
from .heads import TEXT, check_registered
from .loss_tap import by_class, is_sigmoid
from .score_checks import check_activation, mixed_channels
from .text_heads import check_text_head, is_text_head

BOXES, MASKS = 'boxes', 'masks'


@dataclass(frozen=True)
class QuerySpec:
    """One row of the table of query heads.

    Args:
        places: What a query says where its object is: 'boxes', cx, cy, w, h
            in shares of the image, or 'masks', logits.
        read: ``read(outputs, head)`` finds in what the head's forward
            returned the scores of each layer, (B, Q, C), and its places,
            (B, Q, 4) or (B, Q, h, w). Defaults to the first two outputs.
        activation: 'sigmoid' or 'softmax', with the background last.
            Defaults to None: the head's classification loss says.
        after: ``after(head)`` is the number of queries of other kinds that
            stand behind the matching ones. Defaults to none.
        counts: ``counts(head, layer, images)`` is (B, Q) bool, the queries
            that the layer uses, or None for all. Defaults to all.
        reruns: Whether the decoder can run again on other queries.
            Defaults to True.
        refused: Why heads of this kind are not distilled; '' if they are.
    """

    places: str = BOXES
    read: Callable[[Sequence, nn.Module], Sequence] | None = None
    activation: str | None = None
    after: Callable[[nn.Module], int] | None = None
    counts: Callable[[nn.Module, int, int], Tensor | None] | None = None
    reruns: bool = True
    refused: str = ''

    def find(self, outputs: Sequence, head: nn.Module) -> Sequence:
        """The scores of all layers, and the places, as the head gave them."""
        if self.read is not None:
            return self.read(outputs, head)
        return outputs[:2]


def _dense_queries(head: nn.Module) -> int:
    return head.cache_dict['num_dense_queries'] if head.training else 0


def _distinct(head: nn.Module, layer: int, images: int) -> Tensor | None:
    """Those that DDQ's decoder kept; the first layer has all."""
    if layer == 0:
        return None
    # For each image and attention head (Q, Q); DDQ reads the first row.
    mask = head.cache_dict['distinct_query_mask'][layer - 1]
    return mask.unflatten(0, (images, -1))[:, 0, 0]


QUERY_HEADS: dict[str, QuerySpec] = {
    'DETRHead': QuerySpec(),
    'DDQDETRHead': QuerySpec(
        after=_dense_queries, counts=_distinct, reruns=False
    ),
    'GroundingDINOHead': QuerySpec(reruns=False, refused=TEXT),
    'MaskFormerHead': QuerySpec(MASKS, reruns=False),
}


def register_query_head(
    head: str | type,
    places: str = BOXES,
    read: Callable[[Sequence, nn.Module], Sequence] | None = None,
    activation: str | None = None,
    reruns: bool = False,
) -> None:
    """Makes a query head known that is none of MMDetection's.

    ::

        def read(outputs, head):
            boxes, scores = outputs  # (L, B, Q, 4) and (L, B, Q, C)
            return scores, boxes


        register_query_head('MyHead', read=read, activation='sigmoid')

    Heads derived from MMDetection's, with the same outputs, are known as
    they are. The head stands in ``bbox_head`` or ``panoptic_head`` of a
    detector; it is called with what ``forward_transformer`` gives, or
    without that method with the features and the samples.

    Args:
        head: The head's class, or its name; its subclasses follow it.
        places: See :class:`QuerySpec`. Defaults to 'boxes'.
        read: See :class:`QuerySpec`. Defaults to the first two outputs.
        activation: See :class:`QuerySpec`. Defaults to what ``loss_cls`` of
            the head says.
        reruns: See :class:`QuerySpec`. Defaults to False.

    Raises:
        TypeError: ``head`` is no class or name, or ``read`` no function.
        ValueError: places or activation is unknown.
    """
    name = check_registered(head, read)
    check_choice('places', places, (BOXES, MASKS))
    if activation is not None:
        check_choice('activation', activation, ACTIVATIONS)
    QUERY_HEADS[name] = QuerySpec(places, read, activation, reruns=reruns)


def query_spec(head: nn.Module) -> QuerySpec:
    """What the table says of a query head."""
    return by_class(QUERY_HEADS, head)


def query_head(model: nn.Module) -> nn.Module | None:
    """The head whose queries are classified, or None if a model has none."""
    for name in ('bbox_head', 'panoptic_head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.Module) and query_spec(head) is not None:
            return head
    return None


def query_scores(head: nn.Module) -> Scores:
    """What the class scores of a query head mean."""
    activation = query_spec(head).activation
    if activation is None:
        activation = 'sigmoid' if is_sigmoid(head.loss_cls) else 'softmax'
    background = activation == 'softmax'
    return Scores(head.num_classes + background, activation, background)


def check_query_head(
    owner: str, model: nn.Module, prompts: Sequence[str] | None = None
) -> None:
    """Refuses a model without query head, or with one of a kind that is not.

    Args:
        owner: 'student' or 'teacher', for messages.
        model: The detector.
        prompts: The classes that a text-conditioned teacher is asked for.

    Raises:
        TypeError: see above.
    """
    head = query_head(model)
    if is_text_head(head):
        check_text_head(owner, model, prompts)
        return
    if head is None:
        raise TypeError(
            f'the {owner} {type(model).__name__} has no queries: the reader '
            'queries is for the relatives of DETR (DETRHead) and of '
            "MaskFormer (MaskFormerHead); use matching='auto'"
        )
    why = query_spec(head).refused
    if not why and (does := mixed_channels(head, query_scores)):
        why = f'it {does}'
    if why:
        raise TypeError(
            f"the {owner}'s head {type(head).__name__} cannot be distilled: "
            f'{why}'
        )


def check_alike(head: nn.Module, other: nn.Module) -> None:
    """Refuses heads whose queries say different things.

    Raises:
        TypeError: one has boxes and the other masks, or one has a sigmoid
            and the other a softmax.
    """
    names = type(head).__name__, type(other).__name__
    kinds = query_spec(head).places, query_spec(other).places
    if kinds[0] != kinds[1]:
        raise TypeError(
            f"the student's {names[0]} answers with {kinds[0]}, the "
            f"teacher's {names[1]} with {kinds[1]}: their queries cannot be "
            'matched. Use a teacher of the same kind of head, or distil '
            'features'
        )
    check_activation(
        head,
        other,
        query_scores,
        'Use a teacher of the same kind of head, or distil features',
    )
    if names[0] != names[1]:
        print_log(
            f'The heads of student and teacher differ: {names[0]} learns '
            f'from {names[1]}. Their scores are compared as they are.',
            logger='current',
            level=logging.WARNING,
        )


def check_reruns(student: nn.Module, teacher: nn.Module) -> None:
    """Refuses a student whose decoder cannot take the teacher's queries.

    Raises:
        ValueError: see above.
    """
    for model in (student, teacher):
        head = query_head(model)
        if not query_spec(head).reruns or not hasattr(
            model, 'forward_decoder'
        ):
            raise ValueError(
                f"match='teacher_queries': {type(head).__name__} cannot score "
                "other queries than its own; use match='hungarian'"
            )
    widths = [
        getattr(model, 'embed_dims', None) for model in (student, teacher)
    ]
    if widths[0] != widths[1]:
        raise ValueError(
            f"match='teacher_queries': the student's queries have {widths[0]} "
            f"channels, the teacher's {widths[1]}; use match='hungarian'"
        )
