"""The boxes that RoI heads make of the boxes that they are given."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrkkd.ops.constants import constant

from ..class_map import ClassMap
from .base import Scores
from .box_heads import box_scores, box_stages


def check_boxes(
    loss: str, student: nn.Module, teacher: nn.Module, stage: int | str
) -> None:
    """Refuses detectors whose box heads move no box, or several.

    Args:
        loss: Name of the loss that compares boxes.
        student: The student.
        teacher: The teacher.
        stage: Which of the teacher's stages teaches.

    Raises:
        TypeError: see above.
    """
    for owner, model in (('student', student), ('teacher', teacher)):
        for _, head in box_stages(model):
            if not isinstance(getattr(head, 'fc_reg', None), nn.Module):
                raise TypeError(
                    f"{loss} compares boxes: the {owner}'s "
                    f'{type(head).__name__} has no fc_reg that moves the '
                    'sampled ones (Grid R-CNN and SABL find boxes '
                    'otherwise). Leave it out'
                )
    if stage == 'mean':
        raise TypeError(
            f'{loss} compares boxes, and the stages of a cascade move them '
            "one after another: teacher_stage='mean' has no box of its own. "
            'Name one stage'
        )


def surest_classes(
    logits: Tensor, scores: Scores, class_map: ClassMap | None
) -> tuple[Tensor, Tensor]:
    """The teacher's first class of each box, in both models' numbers.

    Args:
        logits: (R, C_t), the teacher's.
        scores: What they mean; how many there are does not matter.
        class_map: Which classes are compared; None for all.

    Returns:
        (R,) and (R,), the student's and the teacher's number; never the
        background.
    """
    class_map = class_map or ClassMap()
    known = class_map.select_teacher(logits)
    first = (known[..., :-1] if scores.background else known).argmax(-1)
    return tuple(
        first if places is None else constant(places, first.device)[first]
        for places in (class_map.student, class_map.teacher)
    )


def moved(
    head: nn.Module, deltas: Tensor, rois: Tensor, classes: Tensor
) -> Tensor:
    """The boxes that a head makes of those that it was given.

    Args:
        head: The box head.
        deltas: (R, 4), or (R, 4 C) where each class has its own.
        rois: (R, 5): index of the image in the batch, x1, y1, x2, y2.
        classes: (R,), whose are taken.

    Returns:
        (R, 4), x1, y1, x2, y2 in pixels, not clipped to the image.
    """
    deltas = deltas.float()
    if not head.reg_class_agnostic:
        places = torch.arange(len(deltas), device=deltas.device)
        deltas = deltas.unflatten(1, (-1, 4))[places, classes]
    boxes = head.bbox_coder.decode(rois[:, 1:], deltas)
    return getattr(boxes, 'tensor', boxes)


def matched_boxes(
    logits: Tensor,
    rois: Tensor,
    student: tuple[nn.Module, Tensor],
    teacher: tuple[nn.Module, Sequence[Sequence[Tensor]]],
    class_map: ClassMap | None,
) -> tuple[Tensor, Tensor]:
    """The moved boxes of both, (R, 4) each; the student's with gradient.

    Of a box that each class moves by itself that of the teacher's surest
    class is taken, in both.

    Args:
        logits: (R, C_t), the teacher's.
        rois: (R, 5), in the teacher's batch.
        student: The box head, which is the teacher's where that is crossed,
            and its deltas.
        teacher: The box head, and what each call gave: scores, deltas.
        class_map: Which classes are compared; None for all.
    """
    if not len(rois):
        return rois.new_zeros(0, 4), rois.new_zeros(0, 4)
    scores = box_scores(teacher[0])
    ours, theirs = surest_classes(logits, scores, class_map)
    with torch.enable_grad():
        crossed = student[0] is teacher[0]
        own = moved(*student, rois, theirs if crossed else ours)
    head, outputs = teacher
    return own, moved(head, outputs[0][1], rois, theirs)
