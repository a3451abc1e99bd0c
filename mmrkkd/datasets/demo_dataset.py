"""The demo set as a data set of MMDetection."""

from mmdet.datasets import CocoDataset

from mmrkkd.registry import DATASETS

from .demo_drawing import COLOURS
from .demo_shapes import CLASSES


@DATASETS.register_module()
class DemoShapesDataset(CocoDataset):
    """The images of ``make_demo_shapes``, with their class names."""

    METAINFO = dict(
        classes=CLASSES, palette=[COLOURS[name.split()[0]] for name in CLASSES]
    )
