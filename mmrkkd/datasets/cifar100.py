"""CIFAR-100 with an error that says which file is missing."""

import os

from mmpretrain.datasets import CIFAR100 as PlainCIFAR100

from mmrkkd.registry import DATASETS


@DATASETS.register_module()
class CIFAR100(PlainCIFAR100):
    """MMPretrain's CIFAR-100, which downloads only when it is told to.

    Images are RGB arrays (32, 32, 3), uint8.

    Args:
        data_root: Folder that holds ``cifar-100-python/``, as
            ``cifar-100-python.tar.gz`` unpacks. Defaults to ''.
        split: 'train' or 'test'. Defaults to 'train'.
        download: Whether to fetch and unpack the archive (169 MB) if it is
            not there. Defaults to False.
        kwargs: As of ``mmpretrain.CIFAR100``.

    Raises:
        FileNotFoundError: a file is missing and ``download`` is False.
        RuntimeError: a file is damaged and ``download`` is False.
    """

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        download: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(
            data_root=data_root, split=split, download=download, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Images and labels, one dict a sample."""
        folder = os.path.join(self.data_prefix['root'], self.base_folder)
        names = [name for name, _ in (*self.train_list, *self.test_list)]
        missing = [
            name
            for name in names
            if not os.path.isfile(os.path.join(folder, name))
        ]
        if missing and not self.download:
            raise FileNotFoundError(
                f'CIFAR100: {os.path.abspath(folder)} lacks '
                f'{" and ".join(missing)}. Unpack {self.filename} below '
                f'data_root={self.data_root!r}, give the place of yours with '
                '--cfg-options data_root=PATH, or set download=True in the '
                'dataset, which fetches it '
                '(train_dataloader.dataset.download=True on the command line)'
            )
        return super().load_data_list()
