"""The strong view of methods that learn from a weak and a strong one."""

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from ..registry import TRANSFORMS

# Of an image (H, W, 3), uint8, and a magnitude v. What a shift uncovers is
# black, and nearest pixels are taken: both as in Pillow, the usual home of
# these operations.
_SHIFT = dict(interpolation='nearest', border_value=0)


def _sheared(direction):
    return lambda img, v: mmcv.imshear(img, v, direction, **_SHIFT)


def _translated(direction, axis):
    def shift(img, v):
        return mmcv.imtranslate(img, v * img.shape[axis], direction, **_SHIFT)

    return shift


# Name, operation, smallest and largest magnitude. 1 would leave brightness,
# colour, contrast and sharpness as they are.
OPERATIONS = (
    ('AutoContrast', lambda img, v: mmcv.auto_contrast(img), 0, 1),
    (
        'Brightness',
        lambda img, v: mmcv.adjust_brightness(img, v, backend='cv2'),
        0.05,
        0.95,
    ),
    (
        'Color',
        lambda img, v: mmcv.adjust_color(img, v, backend='cv2'),
        0.05,
        0.95,
    ),
    (
        'Contrast',
        lambda img, v: mmcv.adjust_contrast(img, v, backend='cv2'),
        0.05,
        0.95,
    ),
    ('Equalize', lambda img, v: mmcv.imequalize(img), 0, 1),
    ('Identity', lambda img, v: img, 0, 1),
    # Bits, cut to an integer: 4 to 7.
    ('Posterize', lambda img, v: mmcv.posterize(img, int(v)), 4, 8),
    ('Rotate', lambda img, v: mmcv.imrotate(img, v, **_SHIFT), -30, 30),
    ('Sharpness', lambda img, v: mmcv.adjust_sharpness(img, v), 0.05, 0.95),
    ('ShearX', _sheared('horizontal'), -0.3, 0.3),
    ('ShearY', _sheared('vertical'), -0.3, 0.3),
    ('Solarize', lambda img, v: mmcv.solarize(img, v), 0, 256),
    ('TranslateX', _translated('horizontal', 1), -0.3, 0.3),
    ('TranslateY', _translated('vertical', 0), -0.3, 0.3),
)


@TRANSFORMS.register_module()
class StrongAugment(BaseTransform):
    """Some of 14 operations of random magnitude, then a grey square.

    The variant of RandAugment that FixMatch uses: the operations are drawn
    with replacement, each with a magnitude uniform in its range, and a square
    of side U(0, cutout) times the image's shorter side is painted about a
    uniform point. MMPretrain's ``RandAugment`` draws otherwise: each
    operation may be skipped and has one magnitude of the whole policy.

    Needs and changes ``img``, uint8 (H, W, 3); its size stays.

    Args:
        num_ops: How many operations, at least 0. Defaults to 2.
        cutout: Largest side of the square as a share of the shorter side, in
            [0, 1]; 0 paints none. Defaults to 0.5.
        cutout_colour: Red, green, blue of the square in [0, 255]. Defaults to
            (125, 123, 114), a grey near the mean of ImageNet.
        channel_order: 'bgr', as files are loaded, or 'rgb', as the arrays of
            CIFAR are stored. Greyness and the square depend on it.
            Defaults to 'bgr'.

    Raises:
        ValueError: an argument is out of range.
        TypeError: an image is not uint8 of shape (H, W, 3).

    Source: Sohn et al., arXiv:2001.07685, as the multi-level distillation
    of Jin et al. (CVPR 2023) uses it.
    """

    def __init__(
        self,
        num_ops: int = 2,
        cutout: float = 0.5,
        cutout_colour: tuple[int, int, int] = (125, 123, 114),
        channel_order: str = 'bgr',
    ) -> None:
        if num_ops < 0:
            raise ValueError(f'num_ops must be at least 0, got {num_ops}')
        if not 0 <= cutout <= 1:
            raise ValueError(
                "cutout is a share of the image's side and must be in "
                f'[0, 1], got {cutout}'
            )
        if len(cutout_colour) != 3:
            raise ValueError(
                'cutout_colour must be red, green and blue, '
                f'got {cutout_colour}'
            )
        if channel_order not in ('bgr', 'rgb'):
            raise ValueError(
                f"channel_order must be 'bgr' or 'rgb', got {channel_order!r}"
            )
        self.num_ops, self.cutout = num_ops, cutout
        self.cutout_colour = tuple(cutout_colour)
        self.channel_order = channel_order

    def transform(self, results: dict) -> dict:
        """Augments ``results['img']``.

        Args:
            results: Holds ``img``, uint8 (H, W, 3).

        Returns:
            The same dict with another ``img``, of the same shape and type.
        """
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise TypeError(
                'StrongAugment needs an image of uint8 (H, W, 3); got '
                f'{image.dtype} {image.shape}. Load images in colour and put '
                'it before any normalization'
            )
        is_rgb = self.channel_order == 'rgb'
        if is_rgb:
            image = np.ascontiguousarray(image[..., ::-1])
        for index in np.random.randint(len(OPERATIONS), size=self.num_ops):
            _, operate, low, high = OPERATIONS[index]
            image = operate(image, np.random.uniform(low, high))
        side = np.random.uniform(0, self.cutout) * min(image.shape[:2])
        # MMCV takes whole pixels only.
        image = mmcv.cutout(
            image, round(side), pad_val=self.cutout_colour[::-1]
        )
        if is_rgb:
            image = np.ascontiguousarray(image[..., ::-1])
        results['img'] = image
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_ops={self.num_ops}, '
            f'cutout={self.cutout}, cutout_colour={self.cutout_colour}, '
            f'channel_order={self.channel_order!r})'
        )
