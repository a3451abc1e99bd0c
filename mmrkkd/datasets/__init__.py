"""Data sets: the drawn demo set, image folders, Tiny-ImageNet, CIFAR-100."""

from importlib.util import find_spec

from .check_data import check_data, inner_datasets
from .contrastive import ContrastiveDataset
from .demo_shapes import CLASSES, Recipe, make_demo_shapes
from .loading import LoadCachedImage, LoadIntactImage, name_broken_images
from .transforms import StrongAugment

__all__ = [
    'CLASSES',
    'ContrastiveDataset',
    'LoadCachedImage',
    'LoadIntactImage',
    'Recipe',
    'StrongAugment',
    'check_data',
    'inner_datasets',
    'make_demo_shapes',
    'name_broken_images',
]

# Who uses MMPretrain alone has no MMDetection, and can do without this one.
if find_spec('mmdet') is not None:
    from .demo_dataset import DemoShapesDataset

    __all__ += ['DemoShapesDataset']

# And the other way round.
if find_spec('mmpretrain') is not None:
    from .cifar100 import CIFAR100
    from .image_folder import ImageFolder
    from .tiny_imagenet import TinyImageNet

    __all__ += ['CIFAR100', 'ImageFolder', 'TinyImageNet']
