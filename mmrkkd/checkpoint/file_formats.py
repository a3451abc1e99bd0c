"""What a file given as a checkpoint is, told by its first bytes."""

import os
import zipfile
from pathlib import Path

import torch

from .safe_pickle import Inert, unpickle

READ_AHEAD = 2**12
SHOWN = 60
# The format allows no longer header.
SAFETENSORS_HEADER = 100_000_000
# A number that torch.save wrote first before it wrote zip archives.
LEGACY_TORCH = b'\nl\xfc\x9cF\xf9 j\xa8P\x19.'
UNPACK = 'unpack it and give the checkpoint that is in it'
# (first bytes, what they are the mark of, what to do).
SIGNATURES = (
    (
        b'version https://git-lfs.github.com/spec/',
        'a Git LFS pointer, which stands for a file that was not fetched',
        'run `git lfs pull` in its repository, or download the file itself',
    ),
    (b'\x1f\x8b', 'a gzip archive', UNPACK),
    (b'BZh', 'a bzip2 archive', UNPACK),
    (b'\xfd7zXZ\x00', 'an xz archive', UNPACK),
    (b'\x28\xb5\x2f\xfd', 'a zstd archive', UNPACK),
    (b"7z\xbc\xaf'\x1c", 'a 7z archive', UNPACK),
    (b'Rar!', 'a rar archive', UNPACK),
    (
        b'\x89HDF\r\n',
        'an HDF5 file, as Keras writes them',
        'convert it to a PyTorch state dict',
    ),
    (b'\x93NUMPY', 'a NumPy array', 'save the state dict by torch.save'),
    (b'GGUF', 'a GGUF file', 'give the PyTorch checkpoint of the model'),
    (b'\x89PNG', 'an image', 'give the checkpoint'),
    (b'\xff\xd8\xff', 'an image', 'give the checkpoint'),
    (b'%PDF', 'a PDF document', 'give the checkpoint'),
)


def read_file(
    path: str | os.PathLike,
    trust: bool = False,
    map_location: object = 'cpu',
    history: type[Inert] | None = None,
) -> object:
    """Reads a file of ``torch.save``, or a safetensors file.

    Args:
        path: The file.
        trust: As for :func:`unpickle`. Defaults to False.
        map_location: As for :func:`unpickle`.
        history: As for :func:`unpickle`.

    Returns:
        What the file holds; of a safetensors file key to tensor.

    Raises:
        ImportError: it is a safetensors file, and their reader is not
            installed.
        ValueError: it holds something else and is not trusted, is damaged,
            or is a file of another kind; the message says of which.
    """
    if _is_safetensors(path):
        return _read_safetensors(path, map_location)
    try:
        return unpickle(path, trust, map_location, history)
    except ValueError as error:
        foreign = foreign_format(path)
        if foreign is None:
            raise
        raise ValueError(f'checkpoint {path} is {foreign}') from error


def foreign_format(path: str | os.PathLike) -> str | None:
    """What a file that is no checkpoint is, and what to do.

    Args:
        path: The file.

    Returns:
        A phrase to follow 'is', or None for what may be a checkpoint.
    """
    with open(path, 'rb') as file:
        start = file.read(READ_AHEAD)
    if not start:
        return (
            'empty: its download or its copy was interrupted, or the disk '
            'was full; fetch it again'
        )
    for signature, what, remedy in SIGNATURES:
        if start.startswith(signature):
            return f'{what}: {remedy}'
    if start[257:262] == b'ustar':
        return f'a tar archive: {UNPACK}'
    if start.startswith(b'PK'):
        return _foreign_zip(path)
    if start[:1] == b'\x80' and LEGACY_TORCH not in start[:64]:
        return (
            'a pickle that torch.save did not write, or a damaged one: '
            'weights of Detectron2 and of other tools in .pkl files must be '
            'converted to a PyTorch state dict'
        )
    return _foreign_text(start)


def _foreign_zip(path: str | os.PathLike) -> str | None:
    if not zipfile.is_zipfile(path):
        return (
            'cut off: its end is missing, as after an interrupted download or '
            'on a full disk; take another copy'
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inside = {Path(name).name for name in names}
    if 'constants.pkl' in inside:
        return (
            'a TorchScript program: give the checkpoint that it was '
            'exported from'
        )
    if 'data.pkl' in inside:
        return None
    shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
    return f'a zip archive that holds {shown or "nothing"}: {UNPACK}'


def _foreign_text(start: bytes) -> str | None:
    # A character at the end may be cut in two.
    text = start.decode('utf-8', 'ignore').lstrip('\ufeff \t\r\n')
    if len(text.encode()) < len(start) - 16 or not text:
        return None
    first = text.splitlines()[0]
    if not first.isprintable():
        return None
    beginning = text[:READ_AHEAD].lower()
    if beginning.startswith(('<!doctype html', '<html', '<head')):
        return (
            'a web page (HTML): the address leads to a page about the file, '
            'to a log-in or to a warning; download the file itself and look '
            'at its size'
        )
    if beginning.startswith('<?xml'):
        return (
            'an XML document, often the error that a storage server '
            f'answered with: {text[:SHOWN]!r}; download it again'
        )
    kind = 'a JSON' if text[0] in '{[' else 'a text'
    return (
        f'{kind} file that begins with {first[:SHOWN]!r}: give the checkpoint'
    )


def _is_safetensors(path: str | os.PathLike) -> bool:
    """Whether a file begins with the length of a JSON header, and it."""
    with open(path, 'rb') as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], 'little')
    return start[8:] == b'{' and length <= SAFETENSORS_HEADER


def _read_safetensors(
    path: str | os.PathLike, map_location: object
) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f'checkpoint {path} is a safetensors file, whose reader is not '
            'installed: pip install safetensors'
        ) from error
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f'checkpoint {path} cannot be read, it is a damaged safetensors '
            f'file: {error}'
        ) from error
    if isinstance(map_location, (str, torch.device)):
        weights = {
            key: value.to(map_location) for key, value in weights.items()
        }
    return weights
