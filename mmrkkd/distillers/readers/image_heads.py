"""Where the heads of image classifiers have the scores they predict with."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from .features import FeatureReader, at_first_size
from .loss_tap import by_class, is_sigmoid

REFUSED = {
    'MultiLabelClsHead': (
        'it decides each class by a sigmoid (multi-label), whatever its '
        'loss, and there is no one class to be sure of'
    ),
    'RegressionHead': 'it predicts numbers, not classes',
    'MultiTaskHead': 'it has a head for each of several tasks',
    'VQAGenerationHead': 'it answers in words',
}
# As a student, by the attribute that switches the second head on.
UNTRAINABLE = {
    'EfficientFormerClsHead': 'dist',
    'LeViTClsHead': 'distillation',
}


class Source(NamedTuple):
    """Where a head's scores are.

    Args:
        module: The part of the head that puts them out; '' for itself.
        scores: Makes of the head and that output the logits (N, C) whose
            softmax the head predicts.
    """

    module: str = ''
    scores: Callable[[nn.Module, object], Tensor] = lambda _, output: output


# Every other head puts them out itself.
SOURCES = {
    # Its loss sees each of two outputs, its prediction is of their sum.
    'ConformerHead': Source('', lambda _, outputs: sum(outputs)),
    # Its loss sees a margin taken off the true class.
    'ArcFaceClsHead': Source(
        'norm_product', lambda head, cosine: head.scale * cosine
    ),
    'HuggingFaceClassifier': Source('model', lambda _, output: output.logits),
    'TimmClassifier': Source('model'),
}


def image_head(model: nn.Module) -> nn.Module:
    """The part with the loss module: timm's classifiers have no head."""
    head = getattr(model, 'head', None)
    return model if head is None else head


def source_of(head: nn.Module) -> Source:
    """Where a head's scores are."""
    return by_class(SOURCES, head) or Source()


def image_scores(head: nn.Module, output: object) -> Tensor:
    """The logits (N, C) in what a whole model puts out as a tensor."""
    # Of the special ones only the head of two leaves something to do.
    if isinstance(output, (tuple, list)):
        return source_of(head).scores(head, output)
    return output


def check_image_head(owner: str, model: nn.Module) -> None:
    """Refuses a model that is no classifier with one softmax.

    Args:
        owner: 'student' or 'teacher', for messages.
        model: The model.

    Raises:
        TypeError: it is none; the message names the head and says why.
    """
    head = image_head(model)
    name = type(head).__name__
    why = by_class(REFUSED, head)
    if why is None and getattr(head, 'loss_module', None) is None:
        why = 'it has no loss_module'
    if why is None and not hasattr(head, 'predict'):
        why = 'it predicts no classes, as heads for pre-training'
    if why:
        whose = '' if head is model else f"'s head {name}"
        raise TypeError(
            f'the {owner} {type(model).__name__}{whose} cannot be distilled: '
            f'{why}. KDClassifier distils image classifiers with one softmax '
            'over exclusive classes'
        )
    second = by_class(UNTRAINABLE, head)
    if owner == 'student' and second and getattr(head, second, False):
        raise TypeError(
            f"the student's head {name} has a second head for distillation, "
            'and MMPretrain cannot train the two: set distillation=False'
        )
    check_image_loss(owner, head)


def check_image_loss(owner: str, head: nn.Module) -> None:
    """Refuses a head whose loss decides each class by a sigmoid.

    Raises:
        TypeError: it does.
    """
    loss = head.loss_module
    if is_sigmoid(loss):
        raise TypeError(
            f"the {owner}'s head {type(head).__name__} with "
            f'{type(loss).__name__} decides each class by a sigmoid. Logit '
            'distillation here needs one softmax over exclusive classes: '
            "use a model trained with loss=dict(type='CrossEntropyLoss'), "
            'LabelSmoothLoss or another softmax loss'
        )


def stated_classes(model: nn.Module) -> int | None:
    """The number of classes that a model states, None if it states none."""
    head = image_head(model)
    # A classifier around a timm or Hugging Face network keeps it in .model.
    parts = [head, getattr(model, 'model', None)]
    if next(head.parameters(), None) is None and not model.with_neck:
        # VGG, AlexNet and LeNet classify in the backbone, before a ClsHead.
        parts.append(model.backbone)
    for part in parts:
        for name in ('num_classes', 'num_labels'):
            number = getattr(part, name, None)
            if isinstance(number, int) and number > 0:
                return number
    return None


def seen_classes(owner: str, model: nn.Module) -> int:
    """The number of scores that a model puts out, by running it once.

    Args:
        owner: 'student' or 'teacher', for messages.
        model: The model, with a head.

    Raises:
        ValueError: it could not be run, or does not put out rows of scores.
    """
    reader = at_first_size(partial(FeatureReader, model, owner, ['head']))
    (shape,) = reader.shapes
    if len(shape) != 2:
        raise ValueError(
            f"the {owner}'s head {type(model.head).__name__} puts out "
            f'{shape} for one image, no row of scores: a ClsHead needs a '
            'backbone that classifies (num_classes=...) or a neck that '
            'makes one vector of an image'
        )
    return shape[1]
