"""Data sets: the generated demo set."""

from importlib.util import find_spec

from .demo_shapes import CLASSES, Recipe, make_demo_shapes

__all__ = ['CLASSES', 'Recipe', 'make_demo_shapes']

# Who uses MMPretrain alone has no MMDetection, and can do without this one.
if find_spec('mmdet') is not None:
    from .demo_dataset import DemoShapesDataset

    __all__ += ['DemoShapesDataset']
