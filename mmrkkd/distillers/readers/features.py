"""Features of named layers, noted in the one forward of a model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from mmrkkd.checkpoint.random_state import cpu_random_state_kept

from .feature_taps import FeatureTaps
from .layer_names import BEFORE, module_at, numbers_of, parsed

# Some networks want the size that they were made for.
PROBED_SIZES = (128, 32, 224, 64, 256)
Built = TypeVar('Built')
# What layers raise for an image of a size that is not theirs.
FAILURES = (RuntimeError, ValueError, AssertionError)


class SizeRefused(ValueError):
    """A model takes no image of the size that was tried."""


def at_first_size(
    build: Callable[[int], Built], sizes: Sequence[int] = PROBED_SIZES
) -> Built:
    """What is built at the first size that the models take.

    Args:
        build: Builds it for images of this side, in pixels.
        sizes: What to try. Defaults to some usual ones.

    Raises:
        SizeRefused: none was taken; the message tells each.
    """
    refused = []
    for size in sizes:
        try:
            return build(size)
        except SizeRefused as error:
            refused.append(str(error))
    raise SizeRefused(' '.join(dict.fromkeys(refused)))


class FeatureReader:
    """Notes what named layers of a model put out.

    Args:
        model: The model; it is run once, in eval mode, without gradient, on
            an empty image, to see the shapes.
        owner: 'student' or 'teacher', for messages.
        layers: As :class:`mmrkkd.losses.feature.FeatureLoss` writes them.
            ``[*]`` stands for all outputs, or all inputs of a ``before``.
        size: Side of that image in pixels.

    After that, for each of the ``layers`` the attribute ``groups`` has the
    outputs meant, as slices of ``shapes`` and of what :meth:`read` gives;
    ``calls`` says how many outputs the module of each path has;
    ``needs_head`` says whether the model's ``extract_feat`` leaves some out.

    Raises:
        SizeRefused: the model takes no image of that size.
        ValueError: a layer does not exist, is not run, or has no or several
            outputs where one was asked for.
    """

    def __init__(
        self,
        model: nn.Module,
        owner: str,
        layers: Sequence[str],
        size: int,
    ) -> None:
        self.owner = owner
        self.wanted = [parsed(owner, layer) for layer in layers]
        for path, _ in self.wanted:
            module_at(model, owner, path)
        # A layer whose output an activation overwrites afterwards.
        self.overwritten: set[str] = set()
        self.layers: list[tuple[str, int]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.groups: list[slice] = []
        self.calls: dict[str, int] = {}
        self.needs_head = False
        self.size = size
        if layers:
            self._probe(model)

    def _probe(self, model: nn.Module) -> None:
        taps = self.look(model)
        self.overwritten = {
            path
            for path, outputs in taps.outputs.items()
            if any(t._version != version for t, version in outputs)
        }
        for path, index in self.wanted:
            outputs = [t for t, _ in taps.outputs.get(path, ())]
            start, self.calls[path] = len(self.layers), len(outputs)
            for number in numbers_of(self.owner, path, index, len(outputs)):
                self.layers.append((path, number))
                self.shapes.append(tuple(outputs[number].shape))
            self.groups.append(slice(start, len(self.layers)))

    def look(self, model: nn.Module) -> FeatureTaps:
        """Runs the model on the empty image, in eval mode."""
        with eval_mode(model), torch.no_grad(), self.tap(model) as taps:
            self._run_once(model, taps)
        return taps

    def _run_once(self, model: nn.Module, taps: FeatureTaps) -> None:
        """Runs a model's features, and its head if need be."""
        image = self._accepted_image(model, taps)
        self.needs_head = bool(self._missing(taps))
        if self.needs_head:
            self._run_head(model, image, taps)

    def _accepted_image(self, model: nn.Module, taps: FeatureTaps) -> Tensor:
        """Computes the features of an empty image, and returns it."""
        some, refused = next(model.parameters()), []
        for channels in input_channels(model):
            image = some.new_zeros(1, channels, self.size, self.size)
            taps.outputs.clear()
            try:
                model.extract_feat(image)
                return image
            except FAILURES as error:
                refused.append(error)
        raise SizeRefused(
            f"the {self.owner}'s features could not be computed on an "
            'empty image, so the shapes of its layers are not known: '
            f'{self.size} pixels: {_first_line(refused[0])}. Set '
            'feature_size to the side of an input that it takes'
        ) from refused[0]

    def _run_head(
        self, model: nn.Module, image: Tensor, taps: FeatureTaps
    ) -> None:
        """Runs the head too; one that wants proposals or samples cannot be."""
        layer = self._missing(taps)[0]
        taps.outputs.clear()
        try:
            model(image, mode='tensor')
        except (*FAILURES, TypeError, AttributeError) as error:
            by_size = isinstance(error, FAILURES)
            raise (SizeRefused if by_size else ValueError)(
                f"the {self.owner}'s layer {layer!r} is not run when its "
                'features are computed, and its head could not be run on an '
                f'empty image: {self.size} pixels: {_first_line(error)}. Set '
                'feature_size to the side of an input that it takes, or name '
                'a layer before the head'
            ) from error

    def _missing(self, taps: FeatureTaps) -> list[str]:
        """Paths of layers that were not run."""
        return [path for path, _ in self.wanted if path not in taps.outputs]

    @property
    def paths(self) -> set[str]:
        """Of the modules whose outputs or inputs are read."""
        return {path.removeprefix(BEFORE) for path, _ in self.wanted}

    @contextmanager
    def tap(self, model: nn.Module) -> Iterator[FeatureTaps]:
        """Notes the outputs of the forward run inside the block."""
        taps = FeatureTaps(model)
        with ExitStack() as stack:
            for path in dict.fromkeys(path for path, _ in self.wanted):
                module = module_at(model, self.owner, path)
                note = taps.hook(path, path in self.overwritten)
                stack.enter_context(
                    module.register_forward_pre_hook(note)
                    if path.startswith(BEFORE)
                    else module.register_forward_hook(note)
                )
            yield taps

    def read(self, taps: FeatureTaps) -> list[Tensor]:
        """The outputs in the order of the layers, ``[*]`` spread out.

        Args:
            taps: What :meth:`tap` gave, after the forward.

        Raises:
            RuntimeError: a layer was not run in this step; or it was run
                without gradient, in a training step, though it trains.
        """
        features = []
        for path, number in self.layers:
            outputs = taps.outputs.get(path, ())
            if number >= len(outputs):
                raise RuntimeError(
                    f"the {self.owner}'s layer {path}[{number}] was not run "
                    'in this step: a feature loss can only use layers that '
                    'every step runs. Under torch.compile that may be the '
                    'code of an earlier run in this process, whose model had '
                    'no such loss: call torch._dynamo.reset() between two'
                )
            features.append(outputs[number][0])
            if taps.is_cut_off(path, features[-1]):
                raise RuntimeError(
                    f"the {self.owner}'s layer {path}[{number}] was run "
                    'without gradient, so that a loss there would teach the '
                    f'{self.owner} nothing: it is inside a checkpointed block '
                    '(with_cp=True, activation_checkpointing) or under '
                    'torch.no_grad(). Name what the block or its stage puts '
                    'out, such as backbone.layer3 or backbone[2], or set '
                    'with_cp=False'
                )
        return features


def input_channels(model: nn.Module) -> list[int]:
    """How many channels a model's images may have, likeliest first.

    Its first convolution says it, unless that is behind a rearrangement, as
    in YOLOX; of a preprocessor one mean may stand for three channels.
    """
    convs = (part for part in model.modules() if isinstance(part, nn.Conv2d))
    guesses = [conv.in_channels for conv in islice(convs, 1)]
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    if mean is not None:
        guesses.append(mean.numel())
    return list(dict.fromkeys([*guesses, 3]))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Inside, a model is in eval mode; random states are as they were."""
    modes = [(part, part.training) for part in model.modules()]
    for part, _ in modes:
        part.training = False
    try:
        with cpu_random_state_kept():
            yield
    finally:
        for part, training in modes:
            part.training = training
