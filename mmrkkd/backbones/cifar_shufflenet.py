"""ShuffleNet and ShuffleNetV2 for 32 x 32 images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrkkd.registry import MODELS

from .staged import StagedBackbone, conv_bn


def channel_shuffle(features: Tensor, groups: int) -> Tensor:
    """Deals the channels of g groups round like cards.

    Args:
        features: (N, C, H, W).
        groups: g, a divisor of C.

    Returns:
        (N, C, H, W); channel j g + i is the j-th of group i.
    """
    grouped = features.unflatten(1, (groups, -1))
    return grouped.transpose(1, 2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """Grouped 1 x 1, shuffle, depthwise 3 x 3, grouped 1 x 1.

    With stride 2 the average-pooled input is concatenated to the result,
    else the input is added to it; ReLU comes last.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output, those of the input included where
            they are concatenated.
        stride: 1 or 2.
        groups: Groups of the 1 x 1 convolutions.
        first_groups: Groups of the first one and of the shuffle. Defaults
            to ``groups``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        groups: int,
        first_groups: int | None = None,
    ) -> None:
        super().__init__()
        self.first_groups = first_groups or groups
        self.pool = None
        if stride == 2:
            self.pool = nn.AvgPool2d(3, stride=2, padding=1)
            channels -= in_channels
        hidden = channels // 4
        self.reduce = conv_bn(in_channels, hidden, groups=self.first_groups)
        self.depthwise = conv_bn(hidden, hidden, 3, stride, groups=hidden)
        self.expand = conv_bn(hidden, channels, groups=groups, activation=None)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        residual = channel_shuffle(self.reduce(features), self.first_groups)
        residual = self.expand(self.depthwise(residual))
        if self.pool is None:
            return self.relu(residual + features)
        return self.relu(torch.cat([residual, self.pool(features)], 1))


class SplitUnit(nn.Module):
    """Convolves one half of the channels and shuffles it with the other.

    Args:
        channels: Channels of input and output, even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half),
            conv_bn(half, half, 3, groups=half, activation=None),
            conv_bn(half, half),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        kept, convolved = features.chunk(2, 1)
        joined = torch.cat([kept, self.branch(convolved)], 1)
        return channel_shuffle(joined, 2)


class DownUnit(nn.Module):
    """Halves the size in two branches and shuffles their halves.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output, even.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.left = nn.Sequential(
            conv_bn(
                in_channels,
                in_channels,
                3,
                2,
                groups=in_channels,
                activation=None,
            ),
            conv_bn(in_channels, half),
        )
        self.right = nn.Sequential(
            conv_bn(in_channels, half),
            conv_bn(half, half, 3, 2, groups=half, activation=None),
            conv_bn(half, half),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H / 2, W / 2)."""
        joined = torch.cat([self.left(features), self.right(features)], 1)
        return channel_shuffle(joined, 2)


@MODELS.register_module()
class CIFARShuffleNetV1(StagedBackbone):
    """ShuffleNet of 3 groups for 32 x 32 images.

    A 1 x 1 stem of 24 channels without pooling, then stages of 4, 8 and 4
    units, the first of each with stride 2: 4 x 4 is left of 32 x 32.

    Parameters with a classifier for 100 classes: 949,258.

    Args:
        out_indices: Stages to return, 0 to 2; -1 is the last. Defaults to
            (-1,).
        init_cfg: MMEngine's description of the initialization. Defaults to
            None: PyTorch's own, as in the published tables.

    Attributes:
        channels: (240, 480, 960); the classifier takes ``in_channels=960``.

    Raises:
        ValueError: out_indices names no stage.

    Source: Zhang et al., arXiv:1707.01083, as used by Tian et al.,
    arXiv:1910.10699.
    """

    stage_names = ('layer1', 'layer2', 'layer3')

    def __init__(
        self,
        out_indices: Sequence[int] = (-1,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__((240, 480, 960), out_indices, init_cfg)
        self.stem = conv_bn(3, 24)
        width = 24
        for name, channels, count in zip(
            self.stage_names, self.channels, (4, 8, 4), strict=True
        ):
            # The stem's 24 channels are too few to be split in groups.
            first_groups = 1 if width == 24 else None
            units = [ShuffleUnit(width, channels, 2, 3, first_groups)]
            for _ in range(count - 1):
                units.append(ShuffleUnit(channels, channels, 1, 3))
            self.add_module(name, nn.Sequential(*units))
            width = channels

    def forward_stem(self, images: Tensor) -> Tensor:
        """See :meth:`StagedBackbone.forward_stem`."""
        return self.stem(images)


@MODELS.register_module()
class CIFARShuffleNetV2(StagedBackbone):
    """ShuffleNetV2 of width 1 for 32 x 32 images.

    A 1 x 1 stem of 24 channels without pooling, three stages that halve the
    size once and then have 3, 7 and 3 units, and a 1 x 1 convolution: 4 x 4
    is left of 32 x 32.

    Parameters with a classifier for 100 classes: 1,355,528.

    Args:
        out_indices: Stages to return, 0 to 3; -1 is the last. Defaults to
            (-1,).
        init_cfg: MMEngine's description of the initialization. Defaults to
            None: PyTorch's own, as in the published tables.

    Attributes:
        channels: (116, 232, 464, 1024), the last being the 1 x 1 convolution
            after the units; the classifier takes ``in_channels=1024``.

    Raises:
        ValueError: out_indices names no stage.

    Source: Ma et al., arXiv:1807.11164, as used by Tian et al.,
    arXiv:1910.10699.
    """

    stage_names = ('layer1', 'layer2', 'layer3', 'last_conv')

    def __init__(
        self,
        out_indices: Sequence[int] = (-1,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__((116, 232, 464, 1024), out_indices, init_cfg)
        self.stem = conv_bn(3, 24)
        width = 24
        for name, channels, count in zip(
            self.stage_names, self.channels, (3, 7, 3), strict=False
        ):
            units = [SplitUnit(channels) for _ in range(count)]
            down = DownUnit(width, channels)
            self.add_module(name, nn.Sequential(down, *units))
            width = channels
        self.last_conv = conv_bn(width, self.channels[-1])

    def forward_stem(self, images: Tensor) -> Tensor:
        """See :meth:`StagedBackbone.forward_stem`."""
        return self.stem(images)
