"""The teacher's features, begun before they are asked for."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..nested import mapped, tensors


class Ahead:
    """Features of some views, which a stream of its own computes.

    On CUDA with ``stream`` the device goes on with what is launched next
    meanwhile; elsewhere they are there when the constructor returns.

    Args:
        model: The teacher, in eval mode.
        views: V tensors (N, C, H, W) of one shape; they go through it in
            one pass.
        stream: Use a stream. Defaults to True.
    """

    def __init__(
        self, model: nn.Module, views: Sequence[Tensor], stream: bool = True
    ) -> None:
        self._views = views
        joined = views[0] if len(views) == 1 else torch.cat(list(views))
        self._stream = None
        extract = torch.no_grad()(model.extract_feat)
        if not (stream and joined.is_cuda):
            self._features = extract(joined)
            return
        self._stream = _side_stream(joined.device)
        # What the batch and the weights were made by goes first.
        self._stream.wait_stream(torch.cuda.current_stream(joined.device))
        with torch.cuda.stream(self._stream):
            self._features = extract(joined)
        # Its memory is not given away before that stream has read it.
        joined.record_stream(self._stream)

    def of(self, inputs: Tensor, noted: Iterable[Tensor] = ()) -> object:
        """The features of a view; what comes next on the device waits.

        Args:
            inputs: One of the views.
            noted: Other tensors that were made on the way.
        """
        self.wait(noted)
        if len(self._views) == 1:
            return self._features
        number = [view is inputs for view in self._views].index(True)
        start = number * len(inputs)
        return mapped(
            self._features, lambda maps: maps[start : start + len(inputs)]
        )

    def wait(self, noted: Iterable[Tensor] = ()) -> None:
        """Hands the features over to the current stream."""
        if self._stream is None:
            return
        current = torch.cuda.current_stream(self._stream.device)
        current.wait_stream(self._stream)
        for tensor in (*tensors(self._features), *noted):
            tensor.record_stream(current)


@contextmanager
def given(
    model: nn.Module,
    ahead: Ahead,
    inputs: Tensor,
    noted: Callable[[], Iterable[Tensor]],
) -> Iterator[None]:
    """Inside the block the teacher has the features of a view already.

    Args:
        model: The teacher; ``extract_feat(inputs)`` gives them.
        ahead: The features.
        inputs: The view.
        noted: Gives the tensors that hooks have noted meanwhile.
    """
    own = vars(model).get('extract_feat')
    extract = model.extract_feat

    def extracted(images: Tensor, *args: object, **kwargs: object) -> object:
        if images is not inputs or args or kwargs:
            return extract(images, *args, **kwargs)
        return ahead.of(inputs, noted())

    model.extract_feat = extracted
    try:
        yield
    finally:
        if own is None:
            del model.extract_feat
        else:
            model.extract_feat = own
        # A reader may have used nothing but what hooks noted.
        ahead.wait(noted())


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
