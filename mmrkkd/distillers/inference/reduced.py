"""Layers in a reduced precision, and the way back."""

from collections.abc import Callable, Collection, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..nested import mapped


class Undo:
    """Remembers a model's weights and functions; a call puts them back.

    It holds what is replaced afterwards: forget it, and that is freed.

    Args:
        model: The model, as it is to be again.
    """

    def __init__(self, model: nn.Module) -> None:
        self._states = [
            (
                module,
                dict(module._parameters),
                dict(module._buffers),
                vars(module).get('forward'),
            )
            for module in model.modules()
        ]

    def __call__(self) -> None:
        """Puts everything back."""
        for module, parameters, buffers, forward in self._states:
            module._parameters.update(parameters)
            module._buffers.update(buffers)
            vars(module).pop('forward', None)
            if forward is not None:
                module.forward = forward


def fold(conv: nn.Module, norm: nn.Module) -> None:
    """Folds a BatchNorm in eval mode into the convolution before it.

    ::

        y = g (w * x + b - m) / sqrt(v + eps) + h
          = (s w) * x + s (b - m) + h,   s = g / sqrt(v + eps)

    The weights are multiplied in float64. The norm hands on its input
    afterwards and holds no weights.

    Args:
        conv: A convolution.
        norm: The BatchNorm that every output of it goes through.
    """
    weight = conv.weight
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -mean if conv.bias is None else conv.bias.double() - mean
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    scaled = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    conv._parameters['weight'] = _frozen(scaled.to(weight.dtype))
    conv._parameters['bias'] = _frozen(bias.to(weight.dtype))
    norm._parameters.update(dict.fromkeys(norm._parameters))
    norm._buffers.update(dict.fromkeys(norm._buffers))
    norm.forward = _handed_on


def foldable(
    pairs: Iterable[tuple[nn.Module, nn.Module]], kept: Collection[nn.Module]
) -> list[tuple[nn.Module, nn.Module]]:
    """The pairs that mean the same when folded.

    Args:
        pairs: Convolution and BatchNorm.
        kept: Modules whose output or input is read.
    """
    return [
        (conv, norm)
        for conv, norm in pairs
        if not {conv, norm} & set(kept) and norm.running_mean is not None
    ]


def narrow(
    part: nn.Module,
    dtype: torch.dtype,
    *,
    widens: bool,
    autocast: bool = False,
    exact_layers: Collection[nn.Module] = (),
) -> None:
    """Makes a part compute in another precision.

    Its weights are replaced, those of convolutions by channels-last ones;
    BatchNorm that is not folded keeps its own, which its kernels take.

    Args:
        part: A part of a model; its inputs are converted.
        dtype: The precision.
        widens: Give float32 out, contiguous, as MMCV's RoI Align needs it.
        autocast: Let autocast see to operators that mix precisions.
            Defaults to False.
        exact_layers: Layers with weights that stay as they are, and give
            float32 out: scores rounded to 8 bits would tie.
    """
    anchor = None
    for name, module in part.named_modules():
        if module in exact_layers:
            keep_float32(module, widens=True)
            continue
        if isinstance(module, _BatchNorm):
            continue
        for key, value in module._parameters.items():
            if value is not None and value.is_floating_point():
                module._parameters[key] = _frozen(_stored(value, dtype))
                anchor = anchor or f'{name}.{key}'.removeprefix('.')
        for key, value in module._buffers.items():
            if value is not None and value.is_floating_point():
                module._buffers[key] = _stored(value, dtype)
    if anchor is not None:
        _run_in_own(
            part,
            anchor,
            maps=any(isinstance(each, nn.Conv2d) for each in part.modules()),
            widens=widens,
            autocast=autocast,
        )


def keep_float32(part: nn.Module, widens: bool = False) -> None:
    """Lets no autocast around a float32 part reduce its precision."""
    anchor, _ = next(part.named_parameters())
    _run_in_own(part, anchor, maps=False, widens=widens)


def _run_in_own(
    module: nn.Module,
    anchor: str,
    *,
    maps: bool,
    widens: bool,
    autocast: bool = False,
) -> None:
    # A partial of the module is copied and pickled with it.
    module.forward = partial(
        _forward, module, type(module).forward, anchor, maps, widens, autocast
    )


def _forward(
    module: nn.Module,
    forward: Callable,
    anchor: str,
    maps: bool,
    widens: bool,
    autocast: bool,
    *args: object,
    **kwargs: object,
) -> object:
    """Runs a module in the precision that its weights have now."""
    weight = module.get_parameter(anchor)
    narrowed = partial(_like, weight.dtype, maps)
    args, kwargs = mapped((args, kwargs), narrowed)
    with torch.autocast(
        weight.device.type,
        weight.dtype if autocast else None,
        enabled=autocast,
    ):
        output = forward(module, *args, **kwargs)
    return mapped(output, _widened) if widens else output


def _handed_on(values: Tensor) -> Tensor:
    return values


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    return _like(dtype, True, value.detach())


def _like(dtype: torch.dtype, maps: bool, value: Tensor) -> Tensor:
    """In a precision; what convolutions take and hold, channels last."""
    if not value.is_floating_point():
        return value
    if maps and value.dim() == 4:
        return value.to(dtype, memory_format=torch.channels_last)
    return value.to(dtype)


def _widened(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    return value.to(
        torch.promote_types(value.dtype, torch.float32),
        memory_format=torch.contiguous_format,
    )
