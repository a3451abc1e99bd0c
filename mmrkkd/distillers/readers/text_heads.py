"""Teachers that are asked in words: Grounding DINO and GLIP.

Their heads score the tokens of a text. Asked for a list of class names, they
score classes: MMDetection's predict takes the mean over the tokens of each
name, and so does this file. Nothing of the model's own way is repeated: it
predicts, and a hook notes what its head put out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Scores
from .loss_tap import by_class
from .method_tap import noted_outputs

TEXT_HEADS = dict.fromkeys(('GroundingDINOHead', 'ATSSVLFusionHead'), True)
# Means of probabilities are kept off 0 and 1 before their logit is taken.
PROBABILITY_EPS = 1e-6


def is_text_head(head: nn.Module | None) -> bool:
    """Whether a head scores the tokens of a text."""
    return bool(by_class(TEXT_HEADS, head))


def text_scores(prompts: Sequence[str]) -> Scores:
    """What the scores of a text head mean when it is asked for classes."""
    return Scores(len(prompts), 'sigmoid')


def check_text_head(
    owner: str, model: nn.Module, prompts: Sequence[str] | None
) -> None:
    """Refuses a text-conditioned detector that cannot be asked for classes.

    Args:
        owner: 'student' or 'teacher', for messages.
        model: The detector.
        prompts: The names it is to be asked for.

    Raises:
        TypeError: it is the student, or there are no names.
        ValueError: it splits its text into several.
    """
    name = type(model.bbox_head).__name__
    if owner == 'student':
        raise TypeError(
            f"the student's head {name} cannot be distilled: its scores are "
            'of the tokens of a text, not of classes. It can be a teacher; '
            'use a student with a fixed list of classes'
        )
    if not prompts:
        raise TypeError(
            f"the teacher's {name} scores the tokens of a text: say in "
            'teacher=dict(..., classes=[...]) which classes it is to be asked '
            "for, by the names of the student's classes"
        )
    if (getattr(model, 'test_cfg', None) or {}).get('chunked_size', -1) > 0:
        raise ValueError(
            f'the teacher {type(model).__name__} asks for its classes in '
            'several texts (test_cfg.chunked_size): a score is of one text. '
            'Set chunked_size=-1 and a list of classes that fits in one'
        )


@torch.no_grad()
def text_outputs(
    model: nn.Module,
    inputs: Tensor,
    data_samples: Sequence,
    prompts: Sequence[str],
) -> tuple[Sequence, Tensor]:
    """What the head puts out when the model is asked for some classes.

    Args:
        model: The detector, in eval mode.
        inputs: (B, 3, H, W), preprocessed for it.
        data_samples: B samples; only what they say of the images is used.
        prompts: C names of classes.

    Returns:
        The head's outputs, with scores of T tokens; and (T, C), the share of
        each token in each class.

    Raises:
        ValueError: a name has no token in the text.
    """
    asked = [
        type(sample)(
            metainfo=dict(
                sample.metainfo, text=tuple(prompts), custom_entities=True
            )
        )
        for sample in data_samples
    ]
    with noted_outputs(model.bbox_head) as noted:
        model.predict(inputs, asked, rescale=False)
    outputs = noted[-1]
    tokens = asked[0].token_positive_map
    share = torch.zeros(outputs[0][0].shape[-1], len(prompts))
    for index, name in enumerate(prompts):
        # Labels count from 1 there.
        places = [t for t in tokens.get(index + 1, ()) if t < len(share)]
        if not places:
            raise ValueError(
                f'the class {name!r} has no token in the text that '
                f'{type(model).__name__} is asked with: {len(share)} tokens '
                'are the most. Use fewer or shorter names in '
                'teacher=dict(classes=[...])'
            )
        share[places, index] = 1 / len(places)
    return outputs, share.to(inputs.device)


def class_logits(token_logits: Tensor, share: Tensor) -> Tensor:
    """Scores of tokens -> logits of classes, in float32.

    ::

        p_c = mean of sigmoid(z_t) over the tokens t of c

    Args:
        token_logits: (..., T); -inf where there is no token.
        share: (T, C).

    Returns:
        (..., C), logit(p_c).
    """
    with torch.autocast(token_logits.device.type, enabled=False):
        mean = token_logits.float().sigmoid() @ share
    return torch.logit(mean, eps=PROBABILITY_EPS)


def text_levels(
    model: nn.Module,
    inputs: Tensor,
    data_samples: Sequence,
    prompts: Sequence[str],
) -> list[Tensor]:
    """GLIP's class logits of each level, (B, H, W, A, C)."""
    (scores, boxes, *_), share = text_outputs(
        model, inputs, data_samples, prompts
    )
    return [
        class_logits(level, share).unflatten(1, (*maps.shape[-2:], -1))
        for level, maps in zip(scores, boxes, strict=True)
    ]
