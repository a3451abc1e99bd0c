"""Reading a checkpoint: from a path or a URL, verified, without running it.

A checkpoint is a pickle, and a pickle can run code when it is read: see
:mod:`mmrkkd.checkpoint.safe_pickle` for what is allowed in one.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_distributed
from mmengine.logging import print_log

from .file_formats import read_file
from .folders import folder_advice

# OpenMMLab ends the name of a published file with the start of its SHA-256.
PUBLISHED_HASH = re.compile(r'-([0-9a-f]{8,64})\.pth?$')
READ_AT_ONCE = 2**20


def fetch_checkpoint(
    location: str | os.PathLike, sha256: str | None = None
) -> Path:
    """Brings a checkpoint to this machine and verifies it.

    A URL is downloaded once, over https, into PyTorch's hub cache
    (``TORCH_HOME``), under a temporary name until it is complete; where
    processes train together by one of each machine, once they are joined.

    Args:
        location: A path or an https URL.
        sha256: The expected SHA-256 in hexadecimal, whole or its first 8 or
            more digits. Where it is None, the digits in a published file
            name (``..._20210524_110822-e10bd31c.pth``) are used for a URL.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: there is no such file, or the download failed.
        IsADirectoryError: it is a folder.
        ValueError: the URL is not https, or the hash is malformed or does
            not match.
    """
    location = os.fspath(location)
    scheme = urlparse(location).scheme
    if sha256 is not None and not re.fullmatch(r'[0-9a-fA-F]{8,64}', sha256):
        raise ValueError(
            f'sha256 must be 8 to 64 hexadecimal digits, got {sha256!r}'
        )
    if '://' in location:
        if scheme != 'https':
            raise ValueError(
                f'checkpoint must be a path or an https URL, got {location!r}'
            )
        if sha256 is None:
            published = PUBLISHED_HASH.search(location)
            sha256 = published.group(1) if published else None
        path = _download(location)
    else:
        path = Path(location).expanduser()
    if path.is_dir():
        raise IsADirectoryError(
            f'checkpoint {location!r} {folder_advice(path)}'
        )
    if not path.is_file():
        raise FileNotFoundError(
            f'checkpoint {location!r} does not exist (looked for '
            f'{path.absolute()}); give the path of a .pth file, or an https '
            'URL'
        )
    if sha256 is not None:
        actual = file_sha256(path)
        if not actual.startswith(sha256.lower()):
            raise ValueError(
                f'checkpoint {path} has SHA-256 {actual}, expected '
                f'{sha256.lower()}: the file is damaged or another one; '
                'delete it and fetch it again, or correct sha256'
            )
    return path


def _download(url: str) -> Path:
    path = _cached(url)
    failure = None
    if _is_first() and not path.exists():
        print_log(f'Downloading {url} to {path}', logger='current')
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:
            failure = error
    # Reached by the process whose download failed as well: the others wait
    # here, and then miss the file.
    barrier()
    if failure is not None:
        raise FileNotFoundError(
            f'could not download checkpoint {url}: {failure}; fetch it by '
            'other means and give its path instead'
        ) from failure
    return path


def _is_first() -> bool:
    """Whether this is the process of its machine that downloads.

    MMEngine's own answer wants a group of each machine, which neither it
    nor anybody makes.
    """
    return not is_distributed() or os.environ.get('LOCAL_RANK', '0') == '0'


def _cached(url: str) -> Path:
    """Where a download is kept: beside PyTorch's own if its name is unique.

    Many files are called ``model.safetensors``: without digits of its own a
    name gets a folder for its address.
    """
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    name = Path(urlparse(url).path).name
    if PUBLISHED_HASH.search(name) is None:
        folder /= hashlib.sha256(url.encode()).hexdigest()[:16]
    return folder / name


def file_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def read_checkpoint(path: str | os.PathLike, trust: bool = False) -> dict:
    """Reads a checkpoint onto the CPU.

    Args:
        path: The file.
        trust: Unpickle whatever is in it, which can run code of the
            author's. Defaults to False: weights only.

    Returns:
        What the file holds, with ``state_dict`` (key to tensor) and
        ``meta`` (dict) always there: a file that is a bare state dict, or
        keeps it under 'model', is brought into this form, and the prefix
        'module.' of a parallel wrapper is removed.

    Raises:
        ValueError: the file holds more than weights and is not trusted, is
            damaged, or has no weights in it.
    """
    return _normalized(read_file(path, trust), path)


def _normalized(content: object, path: str | os.PathLike) -> dict:
    if not isinstance(content, dict):
        raise ValueError(
            f'checkpoint {path} holds a {type(content).__name__},'
            ' expected a dict with a state_dict'
        )
    weights = content.get('state_dict', content.get('model', content))
    if (
        not isinstance(weights, dict)
        or not weights
        or not all(
            isinstance(value, torch.Tensor) for value in weights.values()
        )
    ):
        raise ValueError(
            f'checkpoint {path} has no weights: expected a dict of tensors, '
            "itself or under 'state_dict' or 'model'; it has "
            f'{sorted(map(str, content))[:10]}'
        )
    weights = {key.removeprefix('module.'): weights[key] for key in weights}
    meta = content.get('meta') if weights is not content else None
    return dict(content, state_dict=weights, meta=meta or {})
