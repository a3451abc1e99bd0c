"""How the demo set's backgrounds and shapes are drawn. NumPy only."""

import numpy as np

SHAPES = ('disc', 'square', 'triangle', 'cross')
COLOURS = dict(red=(208, 52, 44), green=(58, 158, 66), blue=(52, 88, 206))
TEXTURES = ('plain', 'striped')

# Sides of the shapes, as a share of the image's side.
SMALLEST, LARGEST = 0.17, 0.45
# Corners lie on this fraction of a pixel, and each pixel is sampled at
# SAMPLES x SAMPLES points between the corners' grid lines. All numbers are
# then exact in binary and no rounding of the platform decides over a pixel.
GRID = 8
SAMPLES = 4
# Cells along a side of the noise of the backgrounds.
CLOUDS = 6

_DISC = [
    (np.cos(a), np.sin(a))
    for a in np.linspace(0, 2 * np.pi, 32, endpoint=False)
]
_CROSS_ARM = 0.36
_UNIT_OUTLINES = dict(
    disc=_DISC,
    square=[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    triangle=[(0, -1), (0.9, 0.8), (-0.9, 0.8)],
    cross=[
        (-_CROSS_ARM, -1),
        (_CROSS_ARM, -1),
        (_CROSS_ARM, -_CROSS_ARM),
        (1, -_CROSS_ARM),
        (1, _CROSS_ARM),
        (_CROSS_ARM, _CROSS_ARM),
        (_CROSS_ARM, 1),
        (-_CROSS_ARM, 1),
        (-_CROSS_ARM, _CROSS_ARM),
        (-1, _CROSS_ARM),
        (-1, -_CROSS_ARM),
        (-_CROSS_ARM, -_CROSS_ARM),
    ],
)


def random_outline(rng, shape, size):
    """A shape of random scale, aspect, turn and position.

    Args:
        rng: ``numpy.random.RandomState``.
        shape: One of ``SHAPES``.
        size: Side of the image in pixels. The shape lies inside the image.

    Returns:
        ndarray: Corners (V, 2), x and y in pixels, multiples of 1 / GRID.
    """
    # Uniform in the logarithm: as many small shapes as large ones.
    side = size * SMALLEST * (LARGEST / SMALLEST) ** rng.uniform()
    aspect = 2 ** rng.uniform(-0.2, 0.2)
    turn = np.deg2rad(rng.uniform(-10, 10))
    corners = np.array(_UNIT_OUTLINES[shape])
    corners = corners * [aspect**0.5, aspect**-0.5]
    cos, sin = np.cos(turn), np.sin(turn)
    corners = corners @ np.array([[cos, sin], [-sin, cos]])
    low, high = corners.min(0), corners.max(0)
    corners = (corners - low) / (high - low).max() * side
    corners += rng.uniform(size=2) * (size - corners.max(0))
    return np.clip(np.rint(corners * GRID) / GRID, 0, size)


def box_of(outline):
    """Left, top, right, bottom of an outline, floats in pixels."""
    return (*outline.min(0).tolist(), *outline.max(0).tolist())


def polygon_area(outline):
    """Area of an outline in square pixels."""
    x, y = outline.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def coverage(outline, size):
    """How much of each pixel an outline covers.

    Args:
        outline: Corners (V, 2) in pixels.
        size: Side of the image in pixels.

    Returns:
        ndarray: (size, size), rows are y, in [0, 1].
    """
    canvas = np.zeros((size, size))
    # Only the pixels about the outline are sampled: most outlines are small.
    left, top = np.floor(outline.min(0)).astype(int).clip(0, size)
    right, bottom = np.ceil(outline.max(0)).astype(int).clip(0, size)
    x = (left + (np.arange((right - left) * SAMPLES) + 0.5) / SAMPLES)[None]
    y = (top + (np.arange((bottom - top) * SAMPLES) + 0.5) / SAMPLES)[:, None]
    inside = np.zeros((y.size, x.size), bool)
    ends = np.roll(outline, -1, axis=0)
    for (x0, y0), (x1, y1) in zip(outline, ends, strict=True):
        if y0 == y1:
            continue
        # Even-odd rule: count the edges to the right of each point.
        crosses = (y0 > y) != (y1 > y)
        edge_x = x0 + (y - y0) * ((x1 - x0) / (y1 - y0))
        inside ^= crosses & (x < edge_x)
    cells = inside.reshape(bottom - top, SAMPLES, right - left, SAMPLES)
    canvas[top:bottom, left:right] = cells.mean(axis=(1, 3))
    return canvas


def draw_background(rng, size):
    """A gradient with cloudy noise, strokes and colourless clutter.

    Args:
        rng: ``numpy.random.RandomState``.
        size: Side of the image in pixels.

    Returns:
        ndarray: Float (size, size, 3), RGB, about [0, 255].
    """
    ends = rng.uniform(60, 200, (2, 1)) + rng.uniform(-25, 25, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.linspace(-0.5, 0.5, size)
    mix = 0.5 + (ramp[None] * np.cos(angle) + ramp[:, None] * np.sin(angle))
    canvas = ends[0] + mix[..., None].clip(0, 1) * (ends[1] - ends[0])
    canvas = canvas + _clouds(rng, size)[..., None] * rng.uniform(10, 40)
    for _ in range(rng.randint(2, 8)):
        _blend(
            canvas,
            coverage(_clutter(rng, size), size),
            rng.uniform(30, 225) + rng.uniform(-18, 18, 3),
        )
    return canvas


def _clouds(rng, size):
    """Smooth noise (size, size) in [-1, 1], bilinear between random nodes."""
    nodes = rng.uniform(-1, 1, (CLOUDS + 1, CLOUDS + 1))
    at = np.arange(size) * CLOUDS / size
    low = at.astype(int)
    part = at - low
    rows = nodes[low] * (1 - part)[:, None] + nodes[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _clutter(rng, size):
    """An outline that is no object: a stroke or a small crooked patch."""
    centre = rng.uniform(0, size, 2)
    if rng.uniform() < 0.5:
        along = rng.uniform(-1, 1, 2) * size / 2
        across = along[::-1] * [1, -1] * rng.uniform(0.01, 0.05)
        corners = [
            along + across,
            along - across,
            -along - across,
            across - along,
        ]
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.randint(3, 8)))
        reach = size * rng.uniform(0.03, 0.15, len(angles))
        corners = np.stack([reach * np.cos(angles), reach * np.sin(angles)], 1)
    return np.rint((centre + np.array(corners)) * GRID) / GRID


def draw_shape(rng, canvas, outline, colour, texture):
    """Draw one object onto the canvas, in place.

    Args:
        rng: ``numpy.random.RandomState``; varies shade and stripes.
        canvas: Float (size, size, 3), RGB.
        outline: Corners (V, 2) in pixels.
        colour: Red, green, blue in [0, 255].
        texture: One of ``TEXTURES``.
    """
    size = len(canvas)
    shade = np.array(colour) * rng.uniform(0.75, 1.15)
    shade = shade + rng.uniform(-20, 20, 3)
    mask = coverage(outline, size)
    # Drawn for plain shapes too, so that a texture does not shift the
    # random stream of what follows.
    angle, shift = rng.uniform(0, np.pi), rng.uniform()
    _blend(canvas, mask, shade)
    if texture == 'striped':
        left, top, right, bottom = box_of(outline)
        period = max(min(right - left, bottom - top) / 3.5, 4.5)
        at = np.arange(size) + 0.5
        phase = at[None] * np.cos(angle) + at[:, None] * np.sin(angle)
        light = (phase / period + shift) % 1 < 0.45
        _blend(canvas, mask * light, shade * 0.35 + 255 * 0.6)


def _blend(canvas, mask, colour):
    canvas += mask[..., None] * (colour - canvas)
