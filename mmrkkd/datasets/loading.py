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


@TRANSFORMS.register_module()
class LoadCachedImage(LoadIntactImage):
    """Decodes each image once for each process, and keeps it in memory.

    For small data sets: decoding is most of the work of a data loader. Each
    worker has a memory of its own, so use one, or none.

    Args:
        max_bytes: Memory for decoded images, > 0, in bytes. Images beyond
            it are read from the disk each time. Defaults to 1 GiB.
        kwargs: Those of :class:`LoadIntactImage`.

    Raises:
        ValueError: max_bytes is not above 0.
    """

    def __init__(self, max_bytes: int = 2**30, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if max_bytes <= 0:
            raise ValueError(f'max_bytes must be above 0, got {max_bytes!r}')
        self.free_bytes = max_bytes
        self._images = {}

    def transform(self, results: dict) -> dict | None:
        """See :meth:`LoadIntactImage.transform`; the image is a copy."""
        image = self._images.get(results['img_path'])
        if image is not None:
            results['img'] = image.copy()
            results['img_shape'] = results['ori_shape'] = image.shape[:2]
            return results
        results = super().transform(results)
        if results is not None and results['img'].nbytes <= self.free_bytes:
            self.free_bytes -= results['img'].nbytes
            self._images[results['img_path']] = results['img'].copy()
        return results


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
