"""How hard each term of a loss pulls at the student's logits."""

import functools
import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

CHECKPOINTED = (
    'activations are checkpointed behind what they are measured at '
    '(with_cp=True, activation_checkpointing)'
)
COMPILED = (
    "torch.compile's backends, but for 'eager', show no gradient inside of "
    'their graphs'
)
# Words of what torch says of a graph that is run backwards to its leaves
# only, or only once.
ONE_WAY = {'compatible with .grad()': CHECKPOINTED, 'donated buf': COMPILED}
# The backward of a graph of such a backend, whatever was computed in it.
COMPILED_BACKWARD = 'CompiledFunctionBackward'


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
        MMEngine would optimise whatever has 'loss' in its key. A norm that
        cannot be measured, through checkpointed activations or inside a
        compiled graph, is left out, and with it all shares; a warning says
        so once.
    """
    # What is measured is a graph, which Dynamo would make another of.
    norms = torch.compiler.disable(_measurable)(terms, logits)
    telemetry = {f'kd/grad_norm_{name}': norm for name, norm in norms.items()}
    if len(norms) == len(terms):
        total = sum(norms.values())
        for name, norm in norms.items():
            telemetry[f'kd/grad_share_{name}'] = torch.where(
                total > 0, norm / total, 0.0
            )
    return telemetry


def _measurable(
    terms: dict[str, Tensor], logits: Sequence[Tensor]
) -> dict[str, Tensor]:
    """The norms that can be measured, by names without 'loss_'."""
    norms = {}
    if any(type(x.grad_fn).__name__ == COMPILED_BACKWARD for x in logits):
        # Torch would say 0 of a term that the same graph has computed.
        _say_what_is_left_out(COMPILED)
        return norms
    for name, value in terms.items():
        try:
            found = term_gradients({name: value}, logits)
        except RuntimeError as error:
            _say_what_is_left_out(_reason(error))
        else:
            norms[name.replace('loss_', '')] = found[name]
    return norms


def _reason(error: RuntimeError) -> str:
    """Why a gradient cannot be measured; what else it is, is raised."""
    for words, reason in ONE_WAY.items():
        if words in str(error):
            return reason
    raise error


@functools.cache
def _say_what_is_left_out(reason: str) -> None:
    print_log(
        'gradient_interval: some kd/grad_norm_ and the kd/grad_share_ beside '
        f'them are not measured, and left out of the log: {reason}',
        logger='current',
        level=logging.WARNING,
    )
