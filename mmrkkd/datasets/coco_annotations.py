"""Whether a COCO annotation file can be read, and has a config's classes."""

import functools
import json
import logging
import mmap
import os
import re
from collections.abc import Iterator

from mmengine.logging import print_log

# What MMDetection's CocoDataset reads of each entry.
KEYS = dict(
    images=('id', 'file_name', 'height', 'width'),
    categories=('id', 'name'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
)
# What it does not look at where an annotation is to be ignored.
BOX = ('bbox', 'area')
REMEDY = (
    "MMDetection's CocoDataset reads "
    + ', '.join(f'{key} ({", ".join(names)})' for key, names in KEYS.items())
    + '; mend the file, or name another by ann_file'
)
# In bytes. COCO's 450 MB take MMDetection, and would take us, many seconds.
LARGE = 2**25
SHOWN = 10
# By what a subclass may read another way, or have other classes.
OWN = (
    '__init__',
    'full_init',
    'COCOAPI',
    'load_data_list',
    'parse_data_info',
)


def is_coco(kind: type) -> bool:
    """Whether a data set reads its file as MMDetection's CocoDataset does.

    Args:
        kind: Its class. Subclasses that read for themselves, as those of
            LVIS and of panoptic COCO, may number classes in another way.
    """
    for base in kind.__mro__:
        # Without an import: MMDetection may not be installed.
        if f'{base.__module__}.{base.__name__}' == (
            'mmdet.datasets.coco.CocoDataset'
        ):
            return all(
                getattr(kind, name) is getattr(base, name) for name in OWN
            )
    return False


def check_annotations(path: str, classes: tuple[str, ...]) -> None:
    """Compares an annotation file with the classes that it is read for.

    MMDetection leaves out boxes of other classes without a word. A file
    larger than ``LARGE`` bytes whose categories are the classes is not read
    further. What is found is told once for a file and its classes.

    Args:
        path: A file in COCO's format.
        classes: ``metainfo.classes`` of its data set.

    Raises:
        ValueError: it is broken, or has none of the classes.
    """
    path = os.path.abspath(path)
    status = os.stat(path)
    large = status.st_size > LARGE
    _check(path, (status.st_size, status.st_mtime_ns), large, classes)


@functools.lru_cache
def _check(
    path: str, stamp: tuple, large: bool, classes: tuple[str, ...]
) -> None:
    """The check; ``stamp`` tells versions of a file apart."""
    if large and classes in _categories(path):
        return
    content = _read(path)
    names = [category['name'] for category in content['categories']]
    if not set(names) & set(classes):
        raise ValueError(
            f'annotation file {path} has none of the classes of its data '
            'set, and all its boxes would be left out.\n'
            f'The classes ({len(classes)}): {_shown(classes)}\n'
            f'Categories of the file ({len(names)}): {_shown(names)}\n'
            'Give the names of the file by metainfo=dict(classes=(...)) of '
            'the data set, or name another file by ann_file'
        )
    told = list(_differences(content, names, classes))
    if told:
        head = f'annotation file {path} does not fit the classes:'
        print_log('\n'.join([head, *told]), 'current', logging.WARNING)


def _categories(path: str) -> list[tuple[str, ...]]:
    """Names in each list of categories, the rest of the file unread."""
    names = []
    with (
        open(path, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        pattern = rb'"categories"\s*:\s*(?=\[)'
        for start in [found.end() for found in re.finditer(pattern, text)]:
            part = text[start : start + LARGE].decode(errors='ignore')
            try:
                entries, _ = json.JSONDecoder().raw_decode(part)
            except ValueError:
                continue
            names.append(
                tuple(
                    entry.get('name')
                    for entry in entries
                    if isinstance(entry, dict)
                )
            )
    return names


def _read(path: str) -> dict:
    """The content of a file that has all that CocoDataset reads."""
    try:
        # As pycocotools opens it.
        with open(path) as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(
            f'annotation file {path} is no JSON ({error}). {REMEDY}'
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f'annotation file {path} must hold a dict, got a '
            f'{type(content).__name__}. {REMEDY}'
        )
    # Those of a test set have no annotations.
    content.setdefault('annotations', [])
    for key, names in KEYS.items():
        entries = content.get(key)
        if not isinstance(entries, list) or (
            not entries and key != 'annotations'
        ):
            raise ValueError(f'annotation file {path} has no {key}. {REMEDY}')
        for index, entry in enumerate(entries):
            for name in names:
                if not isinstance(entry, dict) or (
                    name not in entry
                    and not (name in BOX and entry.get('ignore'))
                ):
                    raise ValueError(
                        f'annotation file {path}: {key}[{index}] has no '
                        f'{name!r}, got {entry!r:.100}. {REMEDY}'
                    )
    return content


def _differences(
    content: dict, names: list[str], classes: tuple[str, ...]
) -> Iterator[str]:
    """Lines that say how a file and the classes differ."""
    missing = [name for name in classes if name not in names]
    if missing:
        yield f'Only the classes have ({len(missing)}): {_shown(missing)}'
    other = [name for name in names if name not in classes]
    if other:
        yield f'Only the file has ({len(other)}): {_shown(other)}'
    known = {
        category['id']
        for category in content['categories']
        if category['name'] in classes
    }
    boxes = content['annotations']
    lost = sum(box['category_id'] not in known for box in boxes)
    if lost:
        yield f'{lost} of its {len(boxes)} boxes are left out'
    labels = [name for name in names if name in classes]
    for label, (name, called) in enumerate(zip(labels, classes, strict=False)):
        if name != called:
            yield (
                f"MMDetection numbers classes in the file's order: label "
                f'{label} is {name!r} and is taken for {called!r}. Give '
                'metainfo.classes in the order of the categories, all of '
                'which the file must have'
            )
            break


def _shown(names: list[str] | tuple[str, ...]) -> str:
    shown = ', '.join(map(repr, names[:SHOWN]))
    return f'{shown}, ...' if len(names) > SHOWN else shown
