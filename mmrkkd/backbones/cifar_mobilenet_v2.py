"""MobileNetV2 for 32 x 32 and 64 x 64 images."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrkkd.registry import MODELS

from .staged import KAIMING, StagedBackbone, conv_bn


class InvertedResidual(nn.Module):
    """Expand, convolve depthwise, project; added to the input if it fits.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the depthwise convolution.
        expansion: Factor on in_channels inside. The expanding convolution is
            there for 1 too.
        **layer: ``bias`` and ``activation`` of :func:`conv_bn`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        expansion: int,
        **layer,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            *conv_bn(in_channels, hidden, **layer),
            *conv_bn(hidden, hidden, 3, stride, groups=hidden, **layer),
            *conv_bn(hidden, channels, **{**layer, 'activation': None}),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        residual = self.conv(features)
        return features + residual if self.has_shortcut else residual


class _MobileNetV2(StagedBackbone):
    """What the two variants share.

    Args:
        stem: From images to ``stem_channels``.
        stem_channels: Channels of the stem's output.
        stages: For each stage its rows (expansion, channels, number of
            blocks, stride of the first block).
        out_indices: See :class:`StagedBackbone`.
        init_cfg: See :class:`StagedBackbone`.
        **layer: ``bias`` and ``activation`` of :func:`conv_bn`.
    """

    stage_names = ('stage1', 'stage2', 'stage3', 'stage4', 'stage5')

    def __init__(
        self,
        stem: nn.Module,
        stem_channels: int,
        stages: Sequence[Sequence[tuple[int, int, int, int]]],
        out_indices: Sequence[int],
        init_cfg: dict | list[dict] | None,
        **layer,
    ) -> None:
        channels = [rows[-1][1] for rows in stages] + [1280]
        super().__init__(channels, out_indices, init_cfg)
        self.stem = stem
        width = stem_channels
        for name, rows in zip(self.stage_names, stages, strict=False):
            blocks = []
            for expansion, out_channels, count, stride in rows:
                for index in range(count):
                    step = stride if index == 0 else 1
                    blocks.append(
                        InvertedResidual(
                            width, out_channels, step, expansion, **layer
                        )
                    )
                    width = out_channels
            self.add_module(name, nn.Sequential(*blocks))
        self.add_module(
            self.stage_names[-1], conv_bn(width, channels[-1], **layer)
        )

    def forward_stem(self, images: Tensor) -> Tensor:
        """See :meth:`StagedBackbone.forward_stem`."""
        return self.stem(images)


@MODELS.register_module()
class CIFARMobileNetV2(_MobileNetV2):
    """MobileNetV2 of half width for 32 x 32 images ("mobile_half").

    It differs from MMPretrain's in the widths (half of the paper's, rounded
    down, not to multiples of 8), in a plain ReLU, in the first block, which
    has its expanding convolution although the factor is 1, and in the
    strides: 2 in the stem, then 1, 1, 2, 2, 1, 2, 1. So 2 x 2 is left of
    32 x 32.

    Parameters with a classifier for 100 classes: 812,836.

    Args:
        out_indices: Stages to return, 0 to 4; -1 is the last. Defaults to
            (-1,).
        init_cfg: MMEngine's description of the initialization. Defaults to
            Kaiming's over the fan-out.

    Attributes:
        channels: (12, 16, 48, 160, 1280), the last being the 1 x 1
            convolution after the blocks; the classifier takes
            ``in_channels=1280``.

    Raises:
        ValueError: out_indices names no stage.

    Source: Sandler et al., arXiv:1801.04381, as used by Tian et al.,
    arXiv:1910.10699.
    """

    def __init__(
        self,
        out_indices: Sequence[int] = (-1,),
        init_cfg: dict | list[dict] | None = KAIMING,
    ) -> None:
        stages = (
            ((1, 8, 1, 1), (6, 12, 2, 1)),
            ((6, 16, 3, 2),),
            ((6, 32, 4, 2), (6, 48, 3, 1)),
            ((6, 80, 3, 2), (6, 160, 1, 1)),
        )
        stem = conv_bn(3, 16, 3, stride=2)
        super().__init__(stem, 16, stages, out_indices, init_cfg)


@MODELS.register_module()
class TinyImageNetMobileNetV2(_MobileNetV2):
    """MobileNetV2 of full width for 64 x 64 images.

    The students of Tiny-ImageNet tables are this network, not
    :class:`CIFARMobileNetV2`. The stem is a 1 x 1 convolution with a padding
    of 1, which makes 66 x 66 of 64 x 64; convolutions have biases; ReLU6;
    strides 1, 2, 2, 2, 1, 1, 1, so that 9 x 9 is left.

    Parameters with a classifier for 200 classes: 2,497,480.

    Args:
        out_indices: Stages to return, 0 to 4; -1 is the last. Defaults to
            (-1,).
        init_cfg: MMEngine's description of the initialization. Defaults to
            None: PyTorch's own, as in the source.

    Attributes:
        channels: (24, 32, 64, 320, 1280), the last being the 1 x 1
            convolution after the blocks; the classifier takes
            ``in_channels=1280``.

    Raises:
        ValueError: out_indices names no stage.

    Source: Sandler et al., arXiv:1801.04381, in the variant of the
    Tiny-ImageNet experiments of Zhao et al., arXiv:2307.08436 (DOT).
    """

    def __init__(
        self,
        out_indices: Sequence[int] = (-1,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        stages = (
            ((1, 16, 1, 1), (6, 24, 2, 2)),
            ((6, 32, 3, 2),),
            ((6, 64, 4, 2),),
            ((6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1)),
        )
        stem = nn.Sequential(
            nn.Conv2d(3, 32, 1, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU6(inplace=True),
        )
        super().__init__(
            stem,
            32,
            stages,
            out_indices,
            init_cfg,
            bias=True,
            activation=nn.ReLU6,
        )
