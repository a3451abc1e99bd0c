"""How MMDetection's RoI heads score boxes, each in its own way."""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Scores
from .loss_tap import by_class, is_sigmoid

REFUSED = {
    'SparseRoIHead': (
        'it scores learned proposals, which are other ones in the teacher '
        "than in the student; use matching='auto', which pairs them"
    ),
    'MultiInstanceRoIHead': (
        'it gives each box two predictions without order (CrowdDet), so '
        "neither belongs to one of the other model's"
    ),
}
# What a RoI head's _bbox_forward is called with, and which part of the head
# makes it of the image's features, as its second output.
CONTEXT = {'semantic_feat': 'semantic_head', 'glbctx_feat': 'glbctx_head'}
CALLED_WITH = {'stage', 'x', 'rois', *CONTEXT}


def box_stages(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """The (RoI extractor, box head) of each stage of a detector."""
    head = model.roi_head
    if isinstance(head.bbox_head, nn.ModuleList):
        return list(zip(head.bbox_roi_extractor, head.bbox_head, strict=True))
    return [(head.bbox_roi_extractor, head.bbox_head)]


def box_scores(head: nn.Module) -> Scores:
    """What the logits of a box head mean.

    C + 1 for a softmax, the background last; C for a sigmoid (V3Det).
    """
    if is_sigmoid(head.loss_cls):
        return Scores(head.num_classes, 'sigmoid')
    return Scores(head.num_classes + 1, background=True)


def check_box_head(owner: str, model: nn.Module) -> None:
    """Refuses a detector whose boxes have no scores of single classes.

    Args:
        owner: 'student' or 'teacher', for messages.
        model: The detector.

    Raises:
        TypeError: it has no RoI head, or one of another kind.
        ValueError: it answers each box several times.
    """
    head = getattr(model, 'roi_head', None)
    if getattr(head, 'bbox_head', None) is None:
        raise TypeError(
            f'the {owner} {type(model).__name__} has no roi_head'
            f'{"" if head is None else " with a box head"}: the '
            'reader rois is for two-stage detectors (Faster, Mask, Cascade '
            'R-CNN and relatives)'
        )
    name = type(head).__name__
    why = by_class(REFUSED, head) or _unknown_context(head)
    if why:
        raise TypeError(
            f"the {owner}'s {name} cannot be distilled by its boxes: {why}"
        )
    if owner == 'teacher':
        _refuse_merged_branches(head)
    for _, box_head in box_stages(model):
        _check_loss(owner, box_head)


def _unknown_context(head: nn.Module) -> str | None:
    """Why a head that reads more than features and boxes is refused."""
    parameters = inspect.signature(head._bbox_forward).parameters.values()
    unknown = [
        each.name
        for each in parameters
        if each.name not in CALLED_WITH
        and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    if not unknown:
        return None
    return (
        f'its _bbox_forward also takes {", ".join(unknown)}, and without '
        'them its scores could be other ones than its own predict gives. '
        'Write a reader for it: docs/en/add_a_head.md'
    )


def _check_loss(owner: str, head: nn.Module) -> None:
    loss = getattr(head, 'loss_cls', None)
    if loss is None:
        raise TypeError(
            f"the {owner}'s box head {type(head).__name__} has no loss_cls, "
            'by which its labels are found and its scores understood'
        )
    kind, classes = type(loss).__name__, head.num_classes
    channels, known = classes + 1, box_scores(head).channels
    if getattr(loss, 'custom_cls_channels', False):
        channels = loss.get_cls_channels(classes)
    if channels == known or _has_objectness(head):
        return
    if known == classes:
        raise TypeError(
            f"the {owner}'s box head classifies with {kind}, which decides "
            f'each class by a sigmoid, and has {channels} channels for '
            f'{classes} classes: it is not known what the background is '
            'then. Use a detector trained with '
            "loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False)"
        )
    raise TypeError(
        f"the {owner}'s box head classifies with {kind}, which wants "
        f'{channels} channels for {classes} classes: known are one for '
        'each class and the background, and SeesawLoss. Write a reader '
        'for it: docs/en/add_a_head.md'
    )


def _has_objectness(head: nn.Module) -> bool:
    return bool(by_class({'SeesawLoss': True}, head.loss_cls))


def _refuse_merged_branches(head: nn.Module) -> None:
    if getattr(head, 'test_branch_idx', 0) == -1:
        raise ValueError(
            f'{type(head).__name__} with test_branch_idx=-1 scores each box '
            'in every branch and merges the detections: there is no one '
            'score of a box; set test_branch_idx of its backbone and its '
            'roi_head to one branch, as TridentNet does for fast inference '
            '(1)'
        )


def as_box_logits(head: nn.Module, scores: Tensor) -> Tensor:
    """Logits whose softmax is what a box head predicts.

    Args:
        head: The box head.
        scores: (R, ...), what it puts out.

    Returns:
        (R, C + 1): the scores themselves, except for SeesawLoss, whose C + 2
        are a softmax over the classes times one over (object, background)::

            z_c = log_softmax(classes)_c + log_softmax(objectness)_0
            z_background = log_softmax(objectness)_1
    """
    if not _has_objectness(head):
        return scores
    # float32: under autocast the scores are half precision.
    classes, objectness = (
        part.to(torch.promote_types(part.dtype, torch.float32)).log_softmax(-1)
        for part in (scores[..., :-2], scores[..., -2:])
    )
    return torch.cat([classes + objectness[..., :1], objectness[..., 1:]], -1)


def box_context(
    model: nn.Module, features: Sequence[Tensor]
) -> dict[str, Tensor]:
    """What a RoI head reads besides the boxes' own features.

    Semantic features (HTC, SCNet) and the global context (SCNet), made as
    the head's own ``predict`` makes them.
    """
    head = model.roi_head
    taken = inspect.signature(head._bbox_forward).parameters
    return {
        name: getattr(head, part)(features)[1]
        for name, part in CONTEXT.items()
        if name in taken and getattr(head, part, None) is not None
    }


def box_logits(
    model: nn.Module,
    stage: int | str,
    features: Sequence[Tensor],
    rois: Tensor,
    context: dict[str, Tensor] | None = None,
) -> Tensor:
    """The classification logits that a detector gives to boxes.

    Args:
        model: A two-stage detector.
        stage: RoI stage; beyond the last one it is the last. 'last'; or
            'mean', the mean of all stages' scores, as a cascade's own test
            takes it, though on boxes that it refines in between.
        features: Its feature maps.
        rois: (R, 5): index of the image in the batch, x1, y1, x2, y2.
        context: What :func:`box_context` makes of the features, if it is
            made already.

    Returns:
        (R, num_classes + 1), background last; of a sigmoid (R,
        num_classes).

    Raises:
        ValueError: the model answers each box several times.
    """
    if not len(rois):
        return rois.new_zeros(0, box_scores(box_stages(model)[0][1]).channels)
    _refuse_merged_branches(model.roi_head)
    if context is None:
        context = box_context(model, features)
    used = used_stages(model, stage)
    scores = [
        _stage_scores(model, each, features, rois, context) for each in used
    ]
    return mean_logits(box_stages(model)[used[0]][1], scores)


def used_stages(model: nn.Module, stage: int | str) -> Sequence[int]:
    """The numbers of the stages that score, see :func:`box_logits`."""
    last = len(box_stages(model)) - 1
    if stage == 'mean':
        return range(last + 1)
    return [last if stage == 'last' else min(stage, last)]


def mean_logits(head: nn.Module, scores: Sequence[Tensor]) -> Tensor:
    """Logits of the mean of what box heads like this one put out."""
    mean = scores[0] if len(scores) == 1 else sum(scores) / len(scores)
    return as_box_logits(head, mean)


def _stage_scores(
    model: nn.Module,
    stage: int,
    features: Sequence[Tensor],
    rois: Tensor,
    context: dict[str, Tensor],
) -> Tensor:
    head = model.roi_head
    if isinstance(head.bbox_head, nn.ModuleList):
        return head._bbox_forward(stage, features, rois, **context)[
            'cls_score'
        ]
    return head._bbox_forward(features, rois, **context)['cls_score']
