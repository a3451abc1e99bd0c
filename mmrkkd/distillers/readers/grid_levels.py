"""The scores of all cells of a model that does not learn."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .heads import dense_head, spec_of
from .text_heads import is_text_head, text_levels


def levels_of(
    model: nn.Module,
    inputs: Tensor,
    data_samples: Sequence,
    prompts: Sequence[str] | None,
) -> tuple[list[Tensor], Sequence[Tensor]]:
    """The scores of each level, and the features that they are made of.

    Args:
        model: A one-stage detector, its inside in eval mode.
        inputs: (B, 3, H, W), preprocessed for it.
        data_samples: B samples.
        prompts: The classes that GLIP is asked for.

    Returns:
        (B, H, W, A, C) of each level, as the head gives them; the features,
        none of GLIP's.
    """
    head = dense_head(model)
    if is_text_head(head):
        return text_levels(model, inputs, data_samples, prompts), ()
    features = model.extract_feat(inputs)
    return training_levels(head, features), features


def training_levels(
    head: nn.Module, features: Sequence[Tensor]
) -> list[Tensor]:
    """The scores of a head's training path, (B, H, W, A, C) a level.

    Heads leave out or change outputs when they predict. The flag is set on
    the head alone: what is inside stays in eval mode.
    """
    return spec_of(head).levels(training_outputs(head, features), head)


def training_outputs(head: nn.Module, features: Sequence[Tensor]) -> Sequence:
    """What a head puts out on its training path."""
    head.training = True
    try:
        return head(features)
    finally:
        head.training = False


def rows_of(levels: Sequence[Tensor]) -> Tensor:
    """(B, H, W, A, C) of each level -> (B, R, C)."""
    if len({level.shape[3] for level in levels}) == 1:
        # Rows and columns flatten without a copy: one copy in all.
        joined = torch.cat([level.flatten(1, 2) for level in levels], 1)
        return joined.flatten(1, 2)
    return torch.cat([level.flatten(1, 3) for level in levels], 1)
