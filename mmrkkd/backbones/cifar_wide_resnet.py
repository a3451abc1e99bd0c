"""Wide residual networks for 32 x 32 images."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrkkd.registry import MODELS

from .staged import KAIMING, StagedBackbone


class PreActivationBlock(nn.Module):
    """BN and ReLU before each of two 3 x 3 convolutions; a bare sum after.

    Where the channels change, both paths start from the activated input and
    the shortcut is a 1 x 1 convolution without BN. Elsewhere the shortcut
    takes the input as it came.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution; the shape may change only
            together with the channels.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(
            in_channels, channels, 3, stride, padding=1, bias=False
        )
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(
                in_channels, channels, 1, stride, bias=False
            )

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        activated = self.relu(self.bn1(features))
        residual = self.relu(self.bn2(self.conv1(activated)))
        residual = self.conv2(residual)
        if self.shortcut is None:
            return features + residual
        return self.shortcut(activated) + residual


@MODELS.register_module()
class CIFARWideResNet(StagedBackbone):
    """Wide residual network (WRN-d-k) for small images.

    A 3 x 3 stem of 16 channels, three stages of n = (d - 4) / 6
    pre-activation blocks with 16k, 32k and 64k channels and strides 1, 2, 2,
    then BN and ReLU; no dropout. Only the last stage's output has passed
    that final BN and ReLU, the others are bare sums.

    At widen_factor=1 the first block of the first stage keeps its 16
    channels and so has no convolution in its shortcut.

    Parameters with a classifier for 100 classes: WRN-16-1 180,916, WRN-16-2
    703,284, WRN-40-1 569,780, WRN-40-2 2,255,156.

    Args:
        depth: d = 6n + 4 with n >= 1: 10, 16, 22, 28, 40.
        widen_factor: k >= 1. Defaults to 1.
        out_indices: Stages to return, 0 to 2; -1 is the last. Defaults to
            (-1,).
        init_cfg: MMEngine's description of the initialization. Defaults to
            Kaiming's over the fan-out.

    Attributes:
        channels: (16k, 32k, 64k); the classifier takes ``in_channels=64k``.

    Raises:
        ValueError: depth is not 6n + 4, widen_factor is below 1, or
            out_indices names no stage.

    Source: Zagoruyko and Komodakis, arXiv:1605.07146, table 1.
    """

    stage_names = ('block1', 'block2', 'block3')

    def __init__(
        self,
        depth: int,
        widen_factor: int = 1,
        out_indices: Sequence[int] = (-1,),
        init_cfg: dict | list[dict] | None = KAIMING,
    ) -> None:
        if depth < 10 or depth % 6 != 4:
            raise ValueError(
                'depth must be 6n + 4 with n >= 1, e.g. one of 10, 16, 22, '
                f'28, 40, got {depth!r}'
            )
        if widen_factor < 1:
            raise ValueError(
                f'widen_factor must be at least 1, got {widen_factor!r}'
            )
        channels = tuple(width * widen_factor for width in (16, 32, 64))
        super().__init__(channels, out_indices, init_cfg)
        self.depth, self.widen_factor = depth, widen_factor
        in_channels = 16
        self.conv1 = nn.Conv2d(3, in_channels, 3, padding=1, bias=False)
        for name, width, stride in zip(
            self.stage_names, channels, (1, 2, 2), strict=True
        ):
            blocks = [PreActivationBlock(in_channels, width, stride)]
            for _ in range((depth - 4) // 6 - 1):
                blocks.append(PreActivationBlock(width, width, 1))
            self.add_module(name, nn.Sequential(*blocks))
            in_channels = width
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward_stem(self, images: Tensor) -> Tensor:
        """See :meth:`StagedBackbone.forward_stem`."""
        return self.conv1(images)

    def finish_stage(self, index: int, features: Tensor) -> Tensor:
        """The last stage's sum gets its BN and ReLU."""
        if index == len(self.channels) - 1:
            return self.relu(self.bn1(features))
        return features
