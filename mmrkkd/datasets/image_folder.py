"""Folders of images, one folder a class, with errors that name the fault."""

import os
from collections.abc import Sequence

from mmpretrain.datasets import CustomDataset

from mmrkkd.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """Images sorted into ``<data_root>/<split>/<class>/``.

    The classes are the names of the folders in sorted order, or those of
    ``classes`` in its order. They must be the same in every split, so that a
    label means the same class everywhere. Images may lie in folders below
    that of their class; names that begin with a dot are passed over. Only
    local folders are read, and nothing is downloaded.

    Args:
        data_root: Folder that holds the splits. Defaults to the current one.
        split: Name of the split's folder. Defaults to 'train'.
        classes: Folder names to take, in the order of their labels, or the
            path of a text file with one a line. Other folders are not read
            then. Defaults to None, which takes all.
        kwargs: Further arguments of ``mmpretrain.CustomDataset``, such as
            ``pipeline``, ``extensions`` or ``indices``.

    Raises:
        FileNotFoundError: a folder is missing or a class has no image.
        ValueError: the splits differ in their classes, or ``classes`` names
            a class twice.
    """

    # What data_root must hold; for messages.
    LAYOUT = (
        'one folder a class: train/<class>/*.jpg and val/<class>/*.jpg '
        '(or .jpeg, .png)'
    )

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        classes: str | Sequence[str] | None = None,
        **kwargs,
    ) -> None:
        self.split = split
        super().__init__(
            data_root=data_root, data_prefix=split, classes=classes, **kwargs
        )

    def _find_samples(self) -> list[tuple[str, int]]:
        """Paths below the split's folder and their labels."""
        chosen = self.CLASSES
        if chosen is None:
            chosen = self._all_classes()
        elif len(set(chosen)) < len(chosen):
            twice = sorted(name for name in chosen if chosen.count(name) > 1)
            raise ValueError(
                f'{self._title}: classes must not repeat a name, '
                f'got {twice[0]!r} twice'
            )
        samples = self._samples_of(tuple(chosen))
        self._metainfo['classes'] = tuple(chosen)
        return samples

    def _all_classes(self) -> list[str]:
        """The classes of the split, which must be those of ``train``."""
        names = folder_names(self._folder(self.split))
        if not names:
            raise FileNotFoundError(
                f'{self._title}: {self._folder(self.split)} holds no class '
                f'folder{self._hint()}. {self._expectation}'
            )
        train = os.path.join(self.data_root, 'train')
        if self.split == 'train' or not os.path.isdir(train):
            return names
        reference = folder_names(train)
        if names != reference:
            raise ValueError(
                f'{self._title}: the class folders of {self.split} and train '
                f'under data_root={self.data_root!r} must be the same; '
                f'{_difference(self.split, names, "train", reference)}'
                f'{self._hint()}. {self._expectation}'
            )
        return names

    def _samples_of(self, names: tuple[str, ...]) -> list[tuple[str, int]]:
        """Walks the folders of some classes; labels count from 0."""
        samples = []
        for label, name in enumerate(names):
            found = self._images_below(os.path.join(self.split, name))
            if not found:
                kinds = ', '.join(sorted(self.extensions))
                raise FileNotFoundError(
                    f'{self._title}: class {name!r} has no image in '
                    f'{self._folder(self.split, name)} (looked for {kinds}, '
                    'in folders below it too)'
                )
            samples += [(os.path.join(name, path), label) for path in found]
        return samples

    def _images_below(self, *parts: str) -> list[str]:
        """Sorted paths of the images below a folder, relative to it."""
        top = self._folder(*parts)
        found = []
        for folder, below, files in os.walk(top, followlinks=True):
            below[:] = [name for name in below if not name.startswith('.')]
            found += [
                os.path.relpath(os.path.join(folder, name), top)
                for name in files
                if self.is_valid_file(name) and not name.startswith('.')
            ]
        return sorted(found)

    def _folder(self, *parts: str) -> str:
        """A folder below ``data_root`` that must be there."""
        path = os.path.join(self.data_root, *parts)
        if not os.path.isdir(path):
            raise FileNotFoundError(
                f'{self._title}: no folder {os.path.abspath(path)}. '
                f'{self._expectation}'
            )
        return path

    @property
    def _title(self) -> str:
        return type(self).__name__

    @property
    def _expectation(self) -> str:
        return (
            f'data_root={self.data_root!r} must hold {self.LAYOUT}; give the '
            'place of yours with --cfg-options data_root=PATH'
        )

    def _hint(self) -> str:
        """What the folder seems to be instead, or nothing."""
        folder = os.path.join(self.data_root, self.split)
        if os.path.isfile(os.path.join(folder, 'val_annotations.txt')):
            return (
                ' (this is the layout in which Tiny-ImageNet is published: '
                "read it with type='mmrkkd.TinyImageNet')"
            )
        if any(map(self.is_valid_file, os.listdir(folder))):
            return (
                f' (images lie in {self.split}/ itself: move each into the '
                'folder of its class)'
            )
        return ''

    def extra_repr(self) -> list[str]:
        """Lines of the printed description."""
        return [f'Images: \t{os.path.join(self.data_root, self.split)}']


def folder_names(folder: str) -> list[str]:
    """Sorted names of the folders in a folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith('.')
        )


def _difference(
    title: str, names: list[str], other_title: str, others: list[str]
) -> str:
    """Which names only one of two lists has, a few of each."""
    parts = []
    for owner, some, rest in (
        (title, names, others),
        (other_title, others, names),
    ):
        alone = sorted(set(some) - set(rest))
        if alone:
            dots = ', ...' if len(alone) > 3 else ''
            parts.append(
                f'{len(alone)} only in {owner}: {", ".join(alone[:3])}{dots}'
            )
    return '; '.join(parts)
