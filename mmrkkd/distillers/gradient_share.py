"""How hard each term of a loss pulls at the student's logits."""

from collections.abc import Sequence

import torch
from torch import Tensor


def term_gradients(
    terms: dict[str, Tensor], logits: Sequence[Tensor]
) -> dict[str, Tensor]:
    """L2 norm of each term's gradient with respect to the logits.

    The graph is kept and no parameter's gradient is touched.

    Args:
        terms: Name to scalar, each with a graph to (some of) the logits.
        logits: The student's logits, any shapes, as they left the student;
            those of frozen layers have no gradient, and are left out.

    Returns:
        The same names to scalars >= 0; 0 for a term that does not depend on
        these logits.
    """
    logits = [each for each in logits if each.requires_grad]
    norms = {}
    for name, value in terms.items():
        gradients = (
            torch.autograd.grad(
                value, logits, retain_graph=True, allow_unused=True
            )
            if value.requires_grad and logits
            else ()
        )
        # Squares of small half precision gradients would vanish.
        squares = [
            gradient.float().square().sum()
            for gradient in gradients
            if gradient is not None
        ]
        total = torch.stack(squares).sum() if squares else value.new_zeros(())
        norms[name] = total.sqrt().detach()
    return norms


def gradient_telemetry(
    terms: dict[str, Tensor], logits: Sequence[Tensor]
) -> dict[str, Tensor]:
    """The norms of :func:`term_gradients` and their shares, for the log.

    Args:
        terms: Log key to scalar.
        logits: The student's logits.

    Returns:
        ``kd/grad_norm_<term>`` and ``kd/grad_share_<term>`` (in [0, 1], 0
        if nothing pulls), where <term> is the log key without 'loss_':
        MMEngine would optimise whatever has 'loss' in its key.
    """
    norms = term_gradients(terms, logits)
    total = sum(norms.values())
    telemetry = {}
    for name, norm in norms.items():
        name = name.replace('loss_', '')
        telemetry[f'kd/grad_norm_{name}'] = norm
        telemetry[f'kd/grad_share_{name}'] = torch.where(
            total > 0, norm / total, 0.0
        )
    return telemetry
