"""Divides an annotation file in COCO's format into two, by images.

    python tools/dataset_tools/hold_out.py TRAIN.json FOLDER --share 0.2

Choices are made on the images of FOLDER/held_out.json by trainings on those
of FOLDER/fit.json, so that the validation images are looked at once, at the
end. Which image is held out depends on its file name alone.
"""

import argparse
import hashlib
import json
from pathlib import Path

FIT, HELD_OUT = 'fit.json', 'held_out.json'


def hold_out(content: dict, share: float) -> tuple[dict, dict]:
    """Two parts of the images, each with its annotations.

    Args:
        content: Of an annotation file.
        share: Of the images in the second part, in (0, 1); rounded to whole
            images, those whose names have the smallest SHA-256.

    Returns:
        The larger and the smaller part, everything else shared.

    Raises:
        ValueError: the share is out of range, or leaves a part empty.
    """
    images = content['images']
    count = round(share * len(images))
    if not 0 < share < 1 or not 0 < count < len(images):
        raise ValueError(
            'share must be in (0, 1) and leave an image in each part, got '
            f'{share} of {len(images)} images'
        )
    ordered = sorted(images, key=lambda image: _hash(image['file_name']))
    held = {image['id'] for image in ordered[:count]}
    return _part(content, held, False), _part(content, held, True)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _part(content: dict, held: set[int], is_held: bool) -> dict:
    return dict(
        content,
        images=[i for i in content['images'] if (i['id'] in held) == is_held],
        annotations=[
            a
            for a in content['annotations']
            if (a['image_id'] in held) == is_held
        ],
    )


def write_parts(source: Path, folder: Path, share: float) -> list[int]:
    """Writes both files; returns how many images each has."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = hold_out(json.loads(Path(source).read_text()), share)
    for name, part in zip((FIT, HELD_OUT), parts, strict=True):
        (folder / name).write_text(json.dumps(part))
    return [len(part['images']) for part in parts]


def main() -> None:
    """Reads the command line and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', type=Path, help='annotation file')
    parser.add_argument('folder', type=Path, help='where both files go')
    parser.add_argument(
        '--share',
        type=float,
        default=0.2,
        help='of the images that is held out (default: %(default)s)',
    )
    args = parser.parse_args()
    fit, held = write_parts(args.source, args.folder, args.share)
    print(f'{args.folder}: {fit} images in {FIT}, {held} in {HELD_OUT}')


if __name__ == '__main__':
    main()
