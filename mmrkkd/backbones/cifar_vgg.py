"""VGG networks with batch normalization for 32 x 32 images."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrkkd.registry import MODELS

from .staged import KAIMING, StagedBackbone, conv_bn, pick

# Convolutions in each of the five stages, by depth. The depth counts the
# three fully connected layers of the original, of which one is left.
CONVS_PER_STAGE = {8: 1, 13: 2}
# Inputs of this many pixels a side and more are pooled once more.
LARGE_INPUT = 64


@MODELS.register_module()
class CIFARVGG(StagedBackbone):
    """VGG-8 or VGG-13 with batch normalization for small images.

    Five stages of 3 x 3 convolutions (with bias), each followed by BN and
    ReLU, of 64, 128, 256, 512 and 512 channels: one to a stage at depth 8,
    two at depth 13. Max-pooling halves the size after the first three
    stages, and after the fourth too if both sides of the images have at
    least 64 pixels: 4 x 4 is left of 32 x 32, and of 64 x 64 as well. A
    stage's output is taken before the pooling.

    Parameters with a classifier for 100 classes: VGG-8 3,965,028, VGG-13
    9,462,180.

    Args:
        depth: 8 or 13.
        out_indices: Stages to return, 0 to 4; -1 is the last. Defaults to
            (-1,).
        init_cfg: MMEngine's description of the initialization. Defaults to
            Kaiming's over the fan-out.

    Attributes:
        channels: (64, 128, 256, 512, 512); the classifier takes
            ``in_channels=512``.

    Raises:
        ValueError: depth is neither 8 nor 13, or out_indices names no stage.

    Source: Simonyan and Zisserman, arXiv:1409.1556, cut down as in Tian et
    al., arXiv:1910.10699.
    """

    stage_names = ('block0', 'block1', 'block2', 'block3', 'block4')

    def __init__(
        self,
        depth: int,
        out_indices: Sequence[int] = (-1,),
        init_cfg: dict | list[dict] | None = KAIMING,
    ) -> None:
        convs = pick('depth', CONVS_PER_STAGE, depth)
        super().__init__((64, 128, 256, 512, 512), out_indices, init_cfg)
        self.depth = depth
        in_channels = 3
        for name, width in zip(self.stage_names, self.channels, strict=True):
            layers = []
            for _ in range(convs):
                layers.extend(conv_bn(in_channels, width, 3, bias=True))
                in_channels = width
            self.add_module(name, nn.Sequential(*layers))
        self.pool = nn.MaxPool2d(2)

    def run_stage(self, index: int, features: Tensor) -> Tensor:
        """See :meth:`StagedBackbone.run_stage`; pools before the stage."""
        # After three poolings.
        is_large = min(features.shape[-2:]) >= LARGE_INPUT // 8
        if 0 < index < 4 or (index == 4 and is_large):
            features = self.pool(features)
        return super().run_stage(index, features)
