"""A classifier that is run from one of its layers to the next."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .features import eval_mode, input_channels
from .image_heads import image_head, image_scores


class StageReader:
    """Finds where the layers that a loss names lie in a backbone.

    Args:
        model: The classifier; run once, in eval mode, on noise.
        owner: 'student' or 'teacher', for messages.
        layers: Stages of the backbone in order, ``'backbone.<stage>'``, up
            to the last, which may also be ``'backbone[<number>]'``, the
            output, and has to be where that is more than the stage's.
        size: Side of its input, in pixels.

    After that ``activated`` says of each layer whether it is never negative.

    Raises:
        ValueError: the backbone cannot be run stage by stage, or the layers
            are not such stages.
    """

    def __init__(
        self, model: nn.Module, owner: str, layers: Sequence[str], size: int
    ) -> None:
        backbone = getattr(model, 'backbone', None)
        head = getattr(model, 'head', None)
        if not hasattr(backbone, 'run_stage') or head is None:
            raise ValueError(
                'the loss runs classifiers stage by stage, and the backbone '
                f'{type(backbone).__name__} of the {owner} cannot be run so: '
                'it needs stage_names, forward_stem, run_stage and '
                'finish_stage, as mmrkkd.backbones.staged.StagedBackbone has '
                'them. The backbones of mmrkkd for small images do'
            )
        names = [f'backbone.{name}' for name in backbone.stage_names]
        last = len(names) - 1
        output = f'backbone[{len(backbone.out_indices) - 1}]'
        known = {name: place for place, name in enumerate(names)}
        if backbone.out_indices[-1] == last:
            known[output] = last
        self.stops = [known.get(layer, -1) for layer in layers]
        good = self.stops == sorted(set(self.stops) - {-1})
        self.activated: list[bool] = []
        if good and self.stops[-1] == last:
            is_whole = self._look(model, size)
            good = is_whole or layers[-1] == output
        if not good or self.stops[-1] != last:
            raise ValueError(
                f"the {owner}'s layers must be stages of its backbone in "
                f'order, of {", ".join(names[:-1])}, and at the end its '
                f'last output, {output}; got {", ".join(layers)}'
            )

    def _look(self, model: nn.Module, size: int) -> bool:
        """Whether the last stage puts out what the backbone does."""
        some, backbone = next(model.parameters()), model.backbone
        channels = input_channels(model)[0]
        image = torch.randn(1, channels, size, size).to(some)
        with eval_mode(model), torch.no_grad():
            features = backbone.forward_stem(image)
            for number in range(len(self.stops)):
                features = self.run(model, number, features)
                self.activated.append(bool((features >= 0).all()))
            # Where nothing is left to do it hands on what it was given.
            return backbone.finish_stage(self.stops[-1], features) is features

    def run(self, model: nn.Module, number: int, features: Tensor) -> Tensor:
        """From one layer to the next, as the model is.

        Args:
            model: The classifier, or a copy.
            number: Of the layer, from 0.
            features: The layer's before, (B, C, H, W); the stem's for 0.
        """
        backbone, stop = model.backbone, self.stops[number]
        start = self.stops[number - 1] + 1 if number else 0
        for index in range(start, stop + 1):
            features = backbone.run_stage(index, features)
        if stop == len(backbone.stage_names) - 1:
            features = backbone.finish_stage(stop, features)
        return features


class MixedStages:
    """See :class:`mmrkkd.losses.feature.base.Stages`.

    Args:
        reader: Knows the layers.
        model: The classifier.
        select: From its logits to those of the classes that are compared.
    """

    def __init__(
        self,
        reader: StageReader,
        model: nn.Module,
        select: Callable[[Tensor], Tensor],
    ) -> None:
        self.reader, self.model, self.select = reader, model, select

    def run(self, number: int, features: Tensor) -> Tensor:
        """From one layer to the next."""
        with _own_statistics(self.model):
            return self.reader.run(self.model, number, features)

    def scores(self, features: Tensor) -> Tensor:
        """From the last layer to the logits."""
        maps = (features,)
        with _own_statistics(self.model):
            if self.model.with_neck:
                maps = self.model.neck(maps)
            output = self.model.head(maps)
        return self.select(image_scores(image_head(self.model), output))


@contextmanager
def _own_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm takes those of its input and notes nothing."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    modes = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training, norm.track_running_stats = mode
