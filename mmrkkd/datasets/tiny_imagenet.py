"""Tiny-ImageNet as it is published, without sorting its files anew."""

import os

from mmrkkd.registry import DATASETS

from .image_folder import ImageFolder, folder_names

ANNOTATIONS = 'val_annotations.txt'


@DATASETS.register_module()
class TinyImageNet(ImageFolder):
    """Tiny-ImageNet: 200 classes of 64x64 images, 500 + 50 of each.

    Reads the archive as it unpacks::

        tiny-imagenet-200/
            wnids.txt                       one class a line
            words.txt                       names of the classes; may lack
            train/<wnid>/images/*.JPEG
            val/images/*.JPEG
            val/val_annotations.txt         file, wnid and box a line

    and also a copy whose validation images were moved to ``val/<wnid>/``.
    The classes are WordNet's identifiers in sorted order, as
    :class:`ImageFolder` would find them, whatever their order in
    ``wnids.txt``. The published test images have no labels and cannot be
    read. Nothing is downloaded.

    ``metainfo['words']`` holds the first English name of each class, if
    ``words.txt`` is there. Such names may repeat; identifiers do not.

    Args:
        data_root: The unpacked folder.
        split: 'train' or 'val'. Defaults to 'train'.
        classes: Identifiers to take, in the order of their labels.
            Defaults to None, which takes all.
        kwargs: As of :class:`ImageFolder`.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: the split is another, or the annotations are damaged.
    """

    LAYOUT = (
        "the unpacked tiny-imagenet-200.zip, as Stanford's course CS231n "
        '("Tiny ImageNet Visual Recognition Challenge") offers it: '
        'wnids.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG and '
        f'val/{ANNOTATIONS}, or val/<wnid>/*.JPEG'
    )

    def __init__(
        self, data_root: str = '', split: str = 'train', **kwargs
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(
                "TinyImageNet: split must be 'train' or 'val' (the labels "
                f'of the test images are not published), got {split!r}'
            )
        super().__init__(data_root=data_root, split=split, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Paths and labels, one dict an image."""
        data = super().load_data_list()
        words = self._words()
        if words:
            self._metainfo['words'] = tuple(
                words.get(name, name) for name in self.CLASSES
            )
        return data

    def _all_classes(self) -> list[str]:
        path = os.path.join(self.data_root, 'wnids.txt')
        if os.path.isfile(path):
            return sorted(line for line in _lines(path) if line)
        # A copy sorted by hand may have left the list behind.
        return folder_names(self._folder('train'))

    def _samples_of(self, names: tuple[str, ...]) -> list[tuple[str, int]]:
        annotations = os.path.join(self.data_root, 'val', ANNOTATIONS)
        images = os.path.join(self.data_root, 'val', 'images')
        # Sorting scripts may leave an empty folder behind.
        is_published = os.path.isdir(images) and os.listdir(images)
        if self.split == 'train' or not is_published:
            return super()._samples_of(names)
        if not os.path.isfile(annotations):
            raise FileNotFoundError(
                f'TinyImageNet: no file {os.path.abspath(annotations)}, '
                'which names the class of each image in val/images. '
                f'{self._expectation}'
            )
        return self._annotated_samples(names, annotations)

    def _annotated_samples(
        self, names: tuple[str, ...], annotations: str
    ) -> list[tuple[str, int]]:
        """The samples of ``val/images``, sorted by their file names."""
        labels = {name: label for label, name in enumerate(names)}
        present = set(os.listdir(self._folder('val', 'images')))
        samples, missing = [], []
        for number, line in enumerate(_lines(annotations), 1):
            if not line:
                continue
            fields = line.split('\t')
            if len(fields) < 2:
                raise ValueError(
                    f'TinyImageNet: line {number} of {annotations} must be '
                    f'file, class and box parted by tabs, got {line!r}'
                )
            file, name = fields[:2]
            if name in labels:
                if file not in present:
                    missing.append(file)
                samples.append((os.path.join('images', file), labels[name]))
        if missing:
            raise FileNotFoundError(
                f'TinyImageNet: {len(missing)} images that {annotations} '
                f'names are not in val/images, such as {missing[0]}; unpack '
                'the archive again'
            )
        empty = set(range(len(names))) - {label for _, label in samples}
        if empty:
            raise FileNotFoundError(
                f'TinyImageNet: class {names[min(empty)]!r} has no image in '
                f'{annotations}'
            )
        return sorted(samples)

    def _words(self) -> dict[str, str]:
        """The first English name of each WordNet identifier."""
        path = os.path.join(self.data_root, 'words.txt')
        if not os.path.isfile(path):
            return {}
        pairs = (line.split('\t', 1) for line in _lines(path) if '\t' in line)
        return {wnid: names.split(',')[0] for wnid, names in pairs}


def _lines(path: str) -> list[str]:
    with open(path, encoding='utf-8') as file:
        return [line.strip() for line in file]
