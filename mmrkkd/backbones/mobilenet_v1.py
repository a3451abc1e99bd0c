"""MobileNet, the first, for ImageNet."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrkkd.registry import MODELS

from .staged import StagedBackbone, conv_bn

# For each stage the channels of its separable convolutions.
STAGES = ((64,), (128,) * 2, (256,) * 2, (512,) * 6, (1024,) * 2)


def separable(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Depthwise 3 x 3 and pointwise convolution, each with BN and ReLU.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the depthwise convolution.

    Returns:
        The two, in a row.
    """
    return nn.Sequential(
        conv_bn(in_channels, in_channels, 3, stride, groups=in_channels),
        conv_bn(in_channels, channels),
    )


@MODELS.register_module()
class MobileNetV1(StagedBackbone):
    """MobileNet of width 1 for ImageNet.

    A 3 x 3 stem of 32 channels and stride 2, then 13 depthwise separable
    convolutions in five stages; every stage but the first starts with
    stride 2, so that 7 x 7 is left of 224 x 224.

    Parameters with a classifier for 1000 classes: 4,231,976. Papers on
    distillation often print "MobileNet" or even "MobileNetV2" for it.

    Args:
        out_indices: Stages to return, 0 to 4; -1 is the last. Defaults to
            (-1,).
        init_cfg: MMEngine's description of the initialization. Defaults to
            None: PyTorch's own, as in the published tables.

    Attributes:
        channels: (64, 128, 256, 512, 1024), strides 2 to 32; the classifier
            takes ``in_channels=1024``.

    Raises:
        ValueError: out_indices names no stage.

    Source: Howard et al., arXiv:1704.04861, table 1.
    """

    stage_names = ('stage1', 'stage2', 'stage3', 'stage4', 'stage5')

    def __init__(
        self,
        out_indices: Sequence[int] = (-1,),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            [widths[-1] for widths in STAGES], out_indices, init_cfg
        )
        self.stem = conv_bn(3, 32, 3, stride=2)
        in_channels = 32
        for index, (name, widths) in enumerate(
            zip(self.stage_names, STAGES, strict=True)
        ):
            layers = []
            for position, width in enumerate(widths):
                stride = 2 if index > 0 and position == 0 else 1
                layers.append(separable(in_channels, width, stride))
                in_channels = width
            self.add_module(name, nn.Sequential(*layers))

    def forward_stem(self, images: Tensor) -> Tensor:
        """See :meth:`StagedBackbone.forward_stem`."""
        return self.stem(images)
