"""Which layer follows which, seen in a forward."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..nested import tensors


class LayerTrace:
    """Notes how layers join in the forwards run inside :meth:`watching`.

    A BatchNorm can be folded into a convolution if every output of the one
    is the next input of the other, and the other way round: shared
    convolutions with a norm for each level cannot.

    ``score_layers`` are the layers whose own outputs leave a head;
    ``inputs`` has what each head was last given.
    """

    def __init__(self) -> None:
        self.score_layers: set[nn.Module] = set()
        self.inputs: dict[nn.Module, list[Tensor]] = {}
        self._norms: dict[nn.Module, set[nn.Module | None]] = {}
        self._convs: dict[nn.Module, set[nn.Module | None]] = {}
        self._last: tuple[nn.Module, Tensor, int] | None = None

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The convolutions with the one BatchNorm that follows each."""
        found = []
        for conv, norms in self._norms.items():
            (norm, *others) = norms
            if norm and not others and self._convs[norm] == {conv}:
                found.append((conv, norm))
        return found

    @contextmanager
    def watching(
        self, body: Iterable[nn.Module], heads: Iterable[nn.Module]
    ) -> Iterator[None]:
        """Notes what runs inside the block.

        Args:
            body: Parts in which BatchNorm is looked for.
            heads: The same, and their layers of scores are looked for.
        """
        with ExitStack() as stack:
            stack.callback(self._close)
            for part in (*body, *heads):
                for module in part.modules():
                    if is_plain_conv(module):
                        stack.enter_context(
                            module.register_forward_hook(self._see_conv)
                        )
                    elif isinstance(module, _BatchNorm):
                        stack.enter_context(
                            module.register_forward_pre_hook(self._see_norm)
                        )
            for head in heads:
                self._watch_scores(head, stack)
            yield

    def _see_conv(self, conv: nn.Module, args: tuple, output: Tensor) -> None:
        self._close()
        self._last = conv, output, output._version

    def _see_norm(self, norm: nn.Module, args: tuple) -> None:
        conv = None
        if self._last is not None:
            last, output, version = self._last
            if args[0] is output and output._version == version:
                conv = last
                self._norms.setdefault(conv, set()).add(norm)
                self._last = None
        self._convs.setdefault(norm, set()).add(conv)

    def _close(self) -> None:
        """What came after the last convolution was no BatchNorm."""
        if self._last is not None:
            self._norms.setdefault(self._last[0], set()).add(None)
            self._last = None

    def _watch_scores(self, head: nn.Module, stack: ExitStack) -> None:
        outputs: list[tuple[nn.Module, Tensor]] = []

        def see_layer(layer: nn.Module, args: tuple, output: Tensor) -> None:
            outputs.append((layer, output))

        def see_head(module: nn.Module, args: tuple, output: object) -> None:
            left = {id(each) for each in tensors(output)}
            self.score_layers |= {
                layer for layer, each in outputs if id(each) in left
            }
            outputs.clear()
            self.inputs[module] = list(tensors(args))

        for layer in head.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                stack.enter_context(layer.register_forward_hook(see_layer))
        stack.enter_context(head.register_forward_hook(see_head))


def is_plain_conv(module: nn.Module) -> bool:
    """Whether a module convolves with the weights that it holds.

    Not those that standardise their weights first, nor reparametrised ones.
    MMCV's Conv2d is torch's, and knows empty inputs.
    """
    kind = type(module)
    return (
        isinstance(module, nn.Conv2d)
        and 'weight' in module._parameters
        and (kind.forward is nn.Conv2d.forward or kind.__name__ == 'Conv2d')
    )
