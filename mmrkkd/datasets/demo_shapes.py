"""A small detection data set that is drawn, not downloaded.

A class is a shape, a colour and a texture ('red striped disc'), so that some
classes resemble each other more than others. That is what distillation
passes on, and what a set of unrelated classes would lack.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .demo_drawing import (
    COLOURS,
    SHAPES,
    TEXTURES,
    box_of,
    draw_background,
    draw_shape,
    polygon_area,
    random_outline,
)

__all__ = ['CLASSES', 'Recipe', 'make_demo_shapes']

CLASSES = tuple(
    f'{colour} {texture} {shape}'
    for shape in SHAPES
    for colour in COLOURS
    for texture in TEXTURES
)

# Raise it whenever the pixels or annotations of a given recipe change: sets
# that an older generator wrote are then made again.
GENERATOR_VERSION = 1

RECIPE_FILE = 'recipe.json'
SPLITS = ('train', 'val')
MAX_OBJECTS = 5
MAX_OVERLAP = 0.15
PLACING_TRIES = 20


@dataclass(frozen=True)
class Recipe:
    """Everything that the content of a generated set depends on.

    Args:
        train: Number of training images. Defaults to 1200.
        val: Number of held-out images. Defaults to 800.
        size: Side of the square images in pixels. Defaults to 128.
        seed: Any integer in [0, 2**32). Image i of a split depends on the
            seed, the split, i and the size only: a larger set starts with
            the images of a smaller one. Defaults to 0.

    Raises:
        ValueError: A split is too small to hold every class, the images are
            smaller than 64 pixels or the seed is out of range.
    """

    train: int = 1200
    val: int = 800
    size: int = 128
    seed: int = 0

    def __post_init__(self):
        for split in SPLITS:
            if getattr(self, split) < len(CLASSES):
                raise ValueError(
                    f'{split} must be at least {len(CLASSES)}, one image for '
                    f'each class, got {getattr(self, split)}'
                )
        if self.size < 64:
            raise ValueError(
                'size must be at least 64 pixels, below that '
                f'stripes vanish, got {self.size}'
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f'seed must be in [0, 2**32), got {self.seed}')

    def record(self):
        """The content of the recipe file, a dict."""
        return dict(asdict(self), generator_version=GENERATOR_VERSION)


def make_demo_shapes(out_dir, recipe=None, progress=True):
    """Write the set in COCO format, or reuse it where it stands complete.

    The set is drawn into ``<out_dir>.partial`` and renamed when it is
    complete, so that ``out_dir`` never holds half a set. The folder then
    has ``train/``, ``val/`` (PNG images), ``annotations/train.json``,
    ``annotations/val.json`` and ``recipe.json``.

    Args:
        out_dir: Folder to make. It may be absent, empty or an earlier set,
            which is replaced if it is incomplete or of another recipe.
        recipe: A ``Recipe``. Defaults to ``Recipe()``.
        progress: Show a progress bar if the output is a terminal.
            Defaults to True.

    Returns:
        bool: True if the set was drawn, False if it was there already.

    Raises:
        FileExistsError: ``out_dir`` holds something that this function did
            not write; nothing is touched then.
    """
    recipe = recipe or Recipe()
    out_dir = Path(out_dir)
    _refuse_foreign_folder(out_dir)
    if is_complete(out_dir, recipe):
        return False
    partial = out_dir.with_name(out_dir.name + '.partial')
    _refuse_foreign_folder(partial)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # Written first: an interrupted run is recognised as ours by it. What
    # makes a set complete is its name without '.partial'.
    _write_json(partial / RECIPE_FILE, recipe.record())
    with tqdm(
        total=recipe.train + recipe.val,
        desc='drawing demo shapes',
        unit='image',
        disable=None if progress else True,
    ) as bar:
        for split in SPLITS:
            _write_split(partial, split, recipe, bar)
    if out_dir.exists():
        shutil.rmtree(out_dir)
    partial.rename(out_dir)
    return True


def is_complete(out_dir, recipe):
    """Whether ``out_dir`` holds the whole set of this recipe."""
    out_dir = Path(out_dir)
    try:
        record = json.loads((out_dir / RECIPE_FILE).read_text())
    except (OSError, ValueError):
        return False
    return record == recipe.record() and all(
        (out_dir / 'annotations' / f'{split}.json').is_file()
        and len(list((out_dir / split).glob('*.png'))) == record[split]
        for split in SPLITS
    )


def _refuse_foreign_folder(folder):
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f'{folder} is a file; name a folder instead')
    found = {entry.name for entry in folder.iterdir()}
    foreign = found - {RECIPE_FILE, 'annotations', *SPLITS}
    if foreign or (found and RECIPE_FILE not in found):
        raise FileExistsError(
            f'{folder} is not a generated demo set: it holds '
            f'{", ".join(sorted(foreign or found)[:5])}. Name a new or empty '
            'folder, or move these files away'
        )


def _write_split(root, split, recipe, bar):
    (root / split).mkdir()
    images, annotations = [], []
    for index in range(getattr(recipe, split)):
        pixels, objects = draw_image(recipe, split, index)
        name = f'{index:06d}.png'
        Image.fromarray(pixels).save(root / split / name, optimize=False)
        images.append(
            dict(
                id=index + 1,
                file_name=name,
                width=recipe.size,
                height=recipe.size,
            )
        )
        for label, outline in objects:
            annotations.append(
                _annotation(len(annotations) + 1, index + 1, label, outline)
            )
        bar.update()
    categories = [
        dict(id=i + 1, name=name, supercategory=name.split()[-1])
        for i, name in enumerate(CLASSES)
    ]
    (root / 'annotations').mkdir(exist_ok=True)
    _write_json(
        root / 'annotations' / f'{split}.json',
        dict(
            info=dict(description='mmrkkd demo shapes', **recipe.record()),
            images=images,
            annotations=annotations,
            categories=categories,
        ),
    )


def _annotation(annotation_id, image_id, label, outline):
    """One COCO entry; outline and box describe the shape, hidden part too."""
    left, top, right, bottom = box_of(outline)
    return dict(
        id=annotation_id,
        image_id=image_id,
        category_id=label + 1,
        bbox=[left, top, right - left, bottom - top],
        area=polygon_area(outline),
        iscrowd=0,
        segmentation=[outline.ravel().tolist()],
    )


def draw_image(recipe, split, index):
    """Draw one image.

    Args:
        recipe: The ``Recipe`` of the set.
        split: 'train' or 'val'.
        index: Number of the image within its split, from 0.

    Returns:
        tuple: The pixels, a uint8 array (size, size, 3), RGB, and a list of
            (label, outline): an index into ``CLASSES`` and a float array
            (V, 2) of x, y in pixels.
    """
    # RandomState, since NumPy promises the same stream in every version for
    # it, unlike for its Generator.
    rng = np.random.RandomState([recipe.seed, SPLITS.index(split), index])
    canvas = draw_background(rng, recipe.size)
    objects = []
    for position in range(rng.randint(1, MAX_OBJECTS + 1)):
        # The first object walks through all classes, so that each occurs in
        # every run of len(CLASSES) images.
        label = rng.randint(len(CLASSES))
        if position == 0:
            label = (index + recipe.seed) % len(CLASSES)
        colour, texture, shape = CLASSES[label].split()
        outline = _place(
            rng, recipe.size, shape, [box_of(other) for _, other in objects]
        )
        if outline is None:
            continue
        draw_shape(rng, canvas, outline, COLOURS[colour], texture)
        objects.append((label, outline))
    gain = rng.uniform(0.7, 1.15)
    noise = rng.uniform(-1, 1, canvas.shape) * rng.uniform(4, 14)
    pixels = np.clip(np.rint(canvas * gain + noise), 0, 255)
    return pixels.astype(np.uint8), objects


def _place(rng, size, shape, taken):
    """An outline that hides little of the boxes in ``taken``, or None."""
    for _ in range(PLACING_TRIES):
        outline = random_outline(rng, shape, size)
        box = box_of(outline)
        if all(_overlap(box, other) <= MAX_OVERLAP for other in taken):
            return outline
    return None


def _overlap(box, other):
    """Intersection over the smaller of the two boxes, in [0, 1]."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return max(width, 0) * max(height, 0) / min(areas)


def _write_json(path, content):
    path.write_text(json.dumps(content, separators=(',', ':')) + '\n')
