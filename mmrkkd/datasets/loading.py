"""Images whose faults have a name."""

import cv2
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config

from mmrkkd.registry import TRANSFORMS, builds


@TRANSFORMS.register_module()
class LoadIntactImage(LoadImageFromFile):
    """MMCV's loader, which names a file that is no image.

    MMCV hands an empty file, which a full disk or an interrupted download
    leaves behind, to OpenCV, whose error names no file. A JPEG that was cut
    off is decoded as far as it goes, here as there.

    Args:
        kwargs: Those of ``mmcv.transforms.LoadImageFromFile``.

    Raises:
        ValueError: the file cannot be decoded.
    """

    def transform(self, results: dict) -> dict | None:
        """Loads the image of ``results['img_path']``.

        Args:
            results: Gets ``img``, (H, W, 3), and its sizes.
        """
        try:
            return super().transform(results)
        except (AssertionError, cv2.error) as error:
            raise ValueError(
                f'{results["img_path"]} is empty or no image that can be '
                'decoded. Put a good copy in its place, or take it out of '
                'the data set'
            ) from error


def name_broken_images(config: Config) -> None:
    """Puts :class:`LoadIntactImage` where MMCV's loader stands.

    Args:
        config: A whole config, changed in place; loaders of other types and
            ``ignore_empty`` keep their meaning.
    """
    for name, value in config.items():
        if name.endswith('_dataloader'):
            _replace_loaders(value)


def _replace_loaders(value: object) -> None:
    if isinstance(value, dict):
        if builds(value, LoadImageFromFile):
            value['type'] = 'mmrkkd.LoadIntactImage'
        for item in value.values():
            _replace_loaders(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _replace_loaders(item)
