"""What a file given as a checkpoint is, told by its first bytes."""

import os
import re
import zipfile
from pathlib import Path

import torch

from .foreign_text import decoded, foreign_text
from .safe_pickle import Inert, unpickle

READ_AHEAD = 2**12
SHOWN = 16
# The format allows no longer header.
SAFETENSORS_HEADER = 100_000_000
# A number that torch.save wrote first before it wrote zip archives.
LEGACY_TORCH = b'\nl\xfc\x9cF\xf9 j\xa8P\x19.'
# The last bytes of the index beside TensorFlow's weights.
TENSORFLOW_INDEX = b'W\xfb\x80\x8b$uG\xdb'
UNPACK = 'unpack it and give the checkpoint that is in it'
CONVERT = 'convert it to a PyTorch state dict'
# (what the first bytes match, what they are the mark of, what to do).
SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), what, remedy)
    for pattern, what, remedy in (
        (rb'\x1f\x8b', 'a gzip archive', UNPACK),
        (rb'BZh', 'a bzip2 archive', UNPACK),
        (rb'\xfd7zXZ\0', 'an xz archive', UNPACK),
        (rb'\x28\xb5\x2f\xfd', 'a zstd archive', UNPACK),
        (rb"7z\xbc\xaf'\x1c", 'a 7z archive', UNPACK),
        (rb'Rar!', 'a rar archive', UNPACK),
        (rb'.{257}ustar', 'a tar archive', UNPACK),
        (
            # As far as was read.
            rb'\0{32,}\Z',
            'filled with zeros, as an empty tar archive is, or a download '
            'that was given its space and never its content',
            'fetch it again',
        ),
        (rb'\x89HDF\r\n', 'an HDF5 file, as Keras writes them', CONVERT),
        (
            # A map whose first key is a string.
            rb'(?:[\x81-\x8f]|\xde..)[\xa1-\xbf]',
            'a MessagePack file, as Flax writes them',
            CONVERT,
        ),
        (
            # Field 1, a version; then a text, a message or a number.
            rb'\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]',
            'an ONNX file, or another protocol buffer',
            'give the PyTorch checkpoint that it was exported from',
        ),
        (rb'\x93NUMPY', 'a NumPy array', 'save the state dict by torch.save'),
        (rb'GGUF', 'a GGUF file', 'give the PyTorch checkpoint of the model'),
        (
            rb'\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}|.{4}ftyp',
            'an image or a video',
            'give the checkpoint',
        ),
        (rb'%PDF', 'a PDF document', 'give the checkpoint'),
    )
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
        if signature.match(start):
            return f'{what}: {remedy}'
    if _end(path) == TENSORFLOW_INDEX:
        return f"the index of TensorFlow's weights: {CONVERT}"
    if start.startswith(b'PK'):
        return _foreign_zip(path)
    if start[:1] == b'\x80':
        if LEGACY_TORCH in start[:64]:
            return None
        return (
            'a pickle that torch.save did not write, or a damaged one: '
            'weights of Detectron2 and of other tools in .pkl files must be '
            'converted to a PyTorch state dict'
        )
    text = decoded(start)
    if text is not None:
        return foreign_text(text)
    return (
        f'damaged or no checkpoint: it begins with {start[:SHOWN]!r}, as '
        'nothing does that torch.save or safetensors write; take another copy'
    )


def _end(path: str | os.PathLike) -> bytes:
    """As many of the last bytes as tell an index of TensorFlow's."""
    with open(path, 'rb') as file:
        file.seek(-min(len(TENSORFLOW_INDEX), os.path.getsize(path)), 2)
        return file.read()


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
