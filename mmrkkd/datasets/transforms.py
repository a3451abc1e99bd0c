"""The strong view of methods that learn from a weak and a strong one."""

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image, ImageEnhance, ImageOps

from mmrkkd.registry import TRANSFORMS


def _affine(*matrix):
    """Nearest pixels; what lies outside the image is black."""
    return dict(method=Image.Transform.AFFINE, data=matrix)


# Name, operation on a Pillow image in RGB, smallest and largest magnitude.
# Brightness, colour, contrast and sharpness would be left alone by 1, and
# posterizing keeps 4 to 7 bits: the magnitude is cut to an integer.
OPERATIONS = (
    ('AutoContrast', lambda img, v: ImageOps.autocontrast(img), 0, 1),
    (
        'Brightness',
        lambda img, v: ImageEnhance.Brightness(img).enhance(v),
        0.05,
        0.95,
    ),
    ('Color', lambda img, v: ImageEnhance.Color(img).enhance(v), 0.05, 0.95),
    (
        'Contrast',
        lambda img, v: ImageEnhance.Contrast(img).enhance(v),
        0.05,
        0.95,
    ),
    ('Equalize', lambda img, v: ImageOps.equalize(img), 0, 1),
    ('Identity', lambda img, v: img, 0, 1),
    ('Posterize', lambda img, v: ImageOps.posterize(img, int(v)), 4, 8),
    ('Rotate', lambda img, v: img.rotate(v), -30, 30),
    (
        'Sharpness',
        lambda img, v: ImageEnhance.Sharpness(img).enhance(v),
        0.05,
        0.95,
    ),
    (
        'ShearX',
        lambda img, v: img.transform(img.size, **_affine(1, v, 0, 0, 1, 0)),
        -0.3,
        0.3,
    ),
    (
        'ShearY',
        lambda img, v: img.transform(img.size, **_affine(1, 0, 0, v, 1, 0)),
        -0.3,
        0.3,
    ),
    ('Solarize', lambda img, v: ImageOps.solarize(img, v), 0, 256),
    (
        'TranslateX',
        lambda img, v: img.transform(
            img.size, **_affine(1, 0, v * img.width, 0, 1, 0)
        ),
        -0.3,
        0.3,
    ),
    (
        'TranslateY',
        lambda img, v: img.transform(
            img.size, **_affine(1, 0, 0, 0, 1, v * img.height)
        ),
        -0.3,
        0.3,
    ),
)


@TRANSFORMS.register_module()
class StrongAugment(BaseTransform):
    """Some of 14 operations of random magnitude, then a grey square.

    The variant of RandAugment that FixMatch uses: the operations are drawn
    with replacement, each with a magnitude uniform in its range, and a square
    of side U(0, cutout) times the image's shorter side is painted about a
    uniform point. MMPretrain's ``RandAugment`` draws otherwise: each
    operation may be skipped, and the ranges are others. The operations are
    Pillow's; what a shift, shear or turn uncovers is black.

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
        # One stride turns BGR into RGB and back.
        order = slice(None, None, -1 if self.channel_order == 'bgr' else 1)
        picture = Image.fromarray(np.ascontiguousarray(image[..., order]))
        for index in np.random.randint(len(OPERATIONS), size=self.num_ops):
            _, operate, low, high = OPERATIONS[index]
            picture = operate(picture, np.random.uniform(low, high))
        rgb = np.array(picture)
        self._paint_square(rgb)
        results['img'] = np.ascontiguousarray(rgb[..., order])
        return results

    def _paint_square(self, rgb: np.ndarray) -> None:
        """Paints the square, in place; part of it may lie outside."""
        height, width = rgb.shape[:2]
        side = np.random.uniform(0, self.cutout) * min(height, width)
        # Moved inside at the left and at the top, cut at the other edges.
        top = int(max(0, np.random.uniform(height) - side / 2))
        left = int(max(0, np.random.uniform(width) - side / 2))
        side = round(side)
        rgb[top : top + side, left : left + side] = self.cutout_colour

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_ops={self.num_ops}, '
            f'cutout={self.cutout}, cutout_colour={self.cutout_colour}, '
            f'channel_order={self.channel_order!r})'
        )
