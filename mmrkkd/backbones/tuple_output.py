"""Other projects' backbones for MMPretrain's necks and heads."""

from mmengine.model import BaseModule
from torch import Tensor

from mmrkkd.registry import MODELS


@MODELS.register_module()
class TupleOutput(BaseModule):
    """A backbone whose list of feature maps is handed on as a tuple.

    MMPretrain's necks take tuples; some backbones of MMDetection, e.g.
    ``mmdet.PyramidVisionTransformer``, return lists.

    Args:
        backbone: Config of the backbone, its type with a scope.
        init_cfg: MMEngine's description of the initialization. Defaults to
            None: what the backbone has.
    """

    def __init__(
        self, backbone: dict, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.backbone = MODELS.build(backbone)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """From images, (N, 3, H, W), to feature maps, (N, C, H', W') each."""
        return tuple(self.backbone(images))
