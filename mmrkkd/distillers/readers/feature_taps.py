"""What tapped modules put out in a forward, and whether it can be learned."""

import torch
from torch import Tensor, nn

from ..nested import tensors
from .layer_names import BEFORE


class FeatureTaps:
    """What the tapped modules put out, call by call.

    ``outputs`` maps a module's path to its tensors, each with its version
    when it was noted; ``grown`` a loss that has a residual inside the model
    to that layer's own tensor and to what the residual makes of it;
    ``without_gradient`` has the paths of modules that were run while
    gradients were off, though they were on around the forward.

    Args:
        model: The tapped model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.outputs: dict[str, list[tuple[Tensor, int]]] = {}
        self.grown: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.learns = torch.is_grad_enabled()
        self.without_gradient: set[str] = set()

    def tensors(self) -> list[Tensor]:
        """All that was noted."""
        return [t for outputs in self.outputs.values() for t, _ in outputs]

    def hook(self, path: str, clone: bool) -> object:
        """A forward hook, or pre-hook, for the module of this path."""

        def note(module: nn.Module, *values: object) -> None:
            if self.learns and not torch.is_grad_enabled():
                self.without_gradient.add(path)
            # A pre-hook's last argument is what goes in.
            self.outputs.setdefault(path, []).extend(
                (t.clone() if clone else t, t._version)
                for t in tensors(values[-1])
            )

        return note

    def is_cut_off(self, path: str, output: Tensor) -> bool:
        """Whether no loss of an output reaches what trains in its part.

        The inside of a checkpointed block is: it runs without gradient, and
        anew in the backward pass, when nobody listens. A frozen stage that
        is run without gradient loses nothing.

        Args:
            path: Of the module.
            output: One of its outputs that were noted.
        """
        if path not in self.without_gradient or output.requires_grad:
            return False
        # Of backbone.layer3.1.conv2 that is the stage: blocks lie in it, and
        # a convolution of the same block may train where a norm is frozen.
        names = path.removeprefix(BEFORE).split('.')
        stage = self.model.get_submodule('.'.join(names[:2]))
        if isinstance(stage, nn.ModuleList):
            # Of backbone.stages.0.blocks.1 one of the stages.
            stage = self.model.get_submodule('.'.join(names[:3]))
        if next(stage.parameters(), None) is None:
            stage = self.model.get_submodule(names[0])
        return any(weight.requires_grad for weight in stage.parameters())
