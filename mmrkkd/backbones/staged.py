"""What the backbones of this package share: stages and their outputs."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

# He et al.'s normal initialization over the fan-out, BN as the identity.
KAIMING = [
    dict(type='Kaiming', layer='Conv2d', mode='fan_out'),
    dict(type='Constant', layer='_BatchNorm', val=1),
]


def conv_bn(
    in_channels: int,
    channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution, batch normalization and activation.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        kernel_size: Odd; the padding keeps the size at stride 1. Defaults
            to 1.
        stride: Defaults to 1.
        groups: Groups of the convolution. Defaults to 1.
        bias: Whether the convolution has one. Defaults to False.
        activation: Class to apply in place, or None. Defaults to ReLU.

    Returns:
        The modules in a row, convolution first.
    """
    layers = [
        nn.Conv2d(
            in_channels,
            channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
        ),
        nn.BatchNorm2d(channels),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def pick(name: str, table: dict, key: object) -> object:
    """The entry of a table of variants.

    Args:
        name: The argument that the user passed, for the error.
        table: What there is.
        key: What was asked for.

    Returns:
        ``table[key]``.

    Raises:
        ValueError: there is no such entry; the message lists the choices.
    """
    if key not in table:
        raise ValueError(f'{name} must be one of {list(table)}, got {key!r}')
    return table[key]


class StagedBackbone(BaseModule):
    """A stem and a row of stages, of which any may be returned.

    A subclass makes its modules, sets :attr:`stage_names`, and may override
    :meth:`forward_stem`, :meth:`run_stage` and :meth:`finish_stage`.

    Args:
        channels: Channels of each stage's output.
        out_indices: The stages to return, counted from 0, or from the end if
            negative.
        init_cfg: MMEngine's description of the initialization. None keeps
            PyTorch's.

    Attributes:
        channels: Channels of every stage's output; the classifier's
            ``in_channels`` is ``channels[-1]``.
        stage_names: Names of the stages' modules, first to last.

    Raises:
        ValueError: out_indices is empty or names no stage.
    """

    stage_names: Sequence[str]

    def __init__(
        self,
        channels: Sequence[int],
        out_indices: Sequence[int],
        init_cfg: dict | list[dict] | None,
    ) -> None:
        super().__init__(init_cfg)
        self.channels = tuple(channels)
        count = len(self.channels)
        wanted = tuple(out_indices)
        if not wanted or not all(-count <= i < count for i in wanted):
            raise ValueError(
                f'out_indices must name stages from 0 to {count - 1} (or '
                f'{-count} to -1 from the end), got {out_indices!r}'
            )
        self.out_indices = tuple(sorted({i % count for i in wanted}))

    def forward_stem(self, images: Tensor) -> Tensor:
        """From images to the input of the first stage.

        Args:
            images: (N, 3, H, W).

        Returns:
            Feature map, (N, channels, H', W'); by default the images.
        """
        return images

    def run_stage(self, index: int, features: Tensor) -> Tensor:
        """From one stage's result to the next one's.

        Args:
            index: The stage, from 0.
            features: (N, C, H, W), what the stage before made; the stem's
                for the first.

        Returns:
            (N, C', H', W'), not finished yet.
        """
        return getattr(self, self.stage_names[index])(features)

    def finish_stage(self, index: int, features: Tensor) -> Tensor:
        """What is applied to a stage's result before it is returned.

        Args:
            index: The stage, from 0.
            features: (N, C, H, W).

        Returns:
            The same shape; by default the argument itself.
        """
        return features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of the chosen stages.

        Args:
            images: (N, 3, H, W), any height and width that the strides leave
                a pixel of.

        Returns:
            One (N, C, H', W') for each of ``out_indices``, first stage
            first.
        """
        features = self.forward_stem(images)
        outputs = []
        for index in range(len(self.stage_names)):
            features = self.run_stage(index, features)
            if index in self.out_indices:
                outputs.append(self.finish_stage(index, features))
        return tuple(outputs)
