"""The 6n + 2 residual networks for 32 x 32 images."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrkkd.registry import MODELS

from .staged import KAIMING, StagedBackbone


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; ReLU after the sum.

    The shortcut is a 1 x 1 convolution with BN where the shape changes.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, channels, 3, stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        residual = self.relu(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + self.downsample(features))


@MODELS.register_module()
class CIFARResNet(StagedBackbone):
    """Residual network of 6n + 2 layers for small images.

    A 3 x 3 stem without pooling, then three stages of n basic blocks with
    strides 1, 2, 2, i.e. 8 x 8 from 32 x 32. The widths are 16, 32, 64 after
    a stem of 16; the networks called "x4" (resnet8x4, resnet32x4) have 64,
    128, 256 after a stem of 32, so that their first stage projects too.

    Parameters with a classifier for 100 classes: resnet20 278,324, resnet32
    472,756, resnet56 861,620, resnet110 1,736,564, resnet8x4 1,233,540,
    resnet32x4 7,433,860.

    Args:
        depth: 6n + 2 with n >= 1: 8, 14, 20, 32, 44, 56, 110.
        wide: The "x4" widths. Defaults to False.
        out_indices: Stages to return, 0 to 2; -1 is the last. Defaults to
            (-1,).
        init_cfg: MMEngine's description of the initialization. Defaults to
            Kaiming's over the fan-out.

    Attributes:
        channels: (16, 32, 64), or (64, 128, 256) if wide: the classifier
            takes ``in_channels=64``, or 256.

    Raises:
        ValueError: depth is not 6n + 2, or out_indices names no stage.

    Source: He et al., arXiv:1512.03385, section 4.2, with projections for
    shortcuts in place of zero padding, as distillation papers since Tian et
    al., arXiv:1910.10699, have it.
    """

    stage_names = ('layer1', 'layer2', 'layer3')

    def __init__(
        self,
        depth: int,
        wide: bool = False,
        out_indices: Sequence[int] = (-1,),
        init_cfg: dict | list[dict] | None = KAIMING,
    ) -> None:
        if depth < 8 or depth % 6 != 2:
            raise ValueError(
                'depth must be 6n + 2 with n >= 1, e.g. one of 8, 14, 20, '
                f'32, 44, 56, 110, got {depth!r}'
            )
        channels = (64, 128, 256) if wide else (16, 32, 64)
        super().__init__(channels, out_indices, init_cfg)
        self.depth, self.wide = depth, wide
        in_channels = 32 if wide else 16
        self.conv1 = nn.Conv2d(3, in_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        for name, width, stride in zip(
            self.stage_names, channels, (1, 2, 2), strict=True
        ):
            blocks = [BasicBlock(in_channels, width, stride)]
            for _ in range((depth - 2) // 6 - 1):
                blocks.append(BasicBlock(width, width, 1))
            self.add_module(name, nn.Sequential(*blocks))
            in_channels = width

    def forward_stem(self, images: Tensor) -> Tensor:
        """See :meth:`StagedBackbone.forward_stem`."""
        return self.relu(self.bn1(self.conv1(images)))
