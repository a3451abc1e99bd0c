"""Backbones of the distillation papers that OpenMMLab does not have."""

from mmrkkd.registry import MODELS, publish

from .cifar_mobilenet_v2 import CIFARMobileNetV2, TinyImageNetMobileNetV2
from .cifar_resnet import CIFARResNet
from .cifar_shufflenet import CIFARShuffleNetV1, CIFARShuffleNetV2
from .cifar_vgg import CIFARVGG
from .cifar_wide_resnet import CIFARWideResNet
from .efficientnet_lite import EfficientNetLite
from .mobilenet_v1 import MobileNetV1
from .tuple_output import TupleOutput

publish(MODELS)

__all__ = [
    'CIFARVGG',
    'CIFARMobileNetV2',
    'CIFARResNet',
    'CIFARShuffleNetV1',
    'CIFARShuffleNetV2',
    'CIFARWideResNet',
    'EfficientNetLite',
    'MobileNetV1',
    'TinyImageNetMobileNetV2',
    'TupleOutput',
]
