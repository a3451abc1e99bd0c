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
# What is read here of each entry.
NEEDED = dict(images={'id', 'file_name'}, annotations={'image_id'})


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
    if not 0 < share < 1 or not (
        0 < (count := round(share * len(images))) < len(images)
    ):
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
    """Writes both files, or keeps those that are the same already.

    Args:
        source: Annotation file.
        folder: Where both go; made if need be.
        share: See :func:`hold_out`.

    Returns:
        How many images each has.

    Raises:
        FileExistsError: one of them holds something else, be it the source;
            nothing is written.
        OSError: a file cannot be read or written.
        ValueError: see :func:`read_annotations` and :func:`hold_out`.
    """
    parts = hold_out(read_annotations(source), share)
    paths = folder / FIT, folder / HELD_OUT
    contents = [json.dumps(part).encode() for part in parts]
    for path, content in zip(paths, contents, strict=True):
        if path.exists() and path.read_bytes() != content:
            raise FileExistsError(
                f'{path} is there and is not this part of {source}; name '
                'another folder'
            )
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents, strict=True):
        part = path.with_suffix('.partial')
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return [len(part['images']) for part in parts]


def read_annotations(source: Path) -> dict:
    """The content of an annotation file.

    Args:
        source: Its path.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not in COCO's format.
    """
    try:
        content = json.loads(Path(source).read_text())
    except ValueError as error:
        raise ValueError(f'{source} is no JSON file: {error}') from error
    for name, needed in NEEDED.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and needed <= entry.keys()
            for entry in entries
        ):
            raise ValueError(
                f"{source} is no annotation file in COCO's format: it must "
                f'have a list {name} of dicts with {sorted(needed)}'
            )
    return content


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
    try:
        fit, held = write_parts(args.source, args.folder, args.share)
    except (OSError, ValueError) as error:
        raise SystemExit(f'hold_out: {error}') from None
    print(f'{args.folder}: {fit} images in {FIT}, {held} in {HELD_OUT}')


if __name__ == '__main__':
    main()
