"""Makes a small file of weights out of a checkpoint, for others to use.

    mmrkkd publish CHECKPOINT student.pth

It keeps the weights and what describes them (class names, epoch, versions).
The optimizer, the log, EMA's second set of weights, the random state, what a
loss has learnt and the training config, which names paths of this machine,
are left out. Nothing in the checkpoint is run.
"""

import argparse
import collections
import hashlib
import io
import sys
from pathlib import Path

import torch

from mmrkkd.checkpoint import read_training_state
from mmrkkd.checkpoint.atomic import write_atomically
from mmrkkd.cli import add_trust_option
from mmrkkd.distillers.student_state import LEARNED

DESCRIBING = ('dataset_meta', 'epoch', 'iter', 'mmengine_version', 'time')


def published(content: dict, ema: bool = True) -> dict:
    """What is published of a checkpoint.

    Args:
        content: What :func:`read_training_state` gives.
        ema: Where the run had an EMAHook, take the average of the weights,
            not the weights that were trained. Defaults to True.

    Returns:
        ``meta`` and ``state_dict``.

    Raises:
        ValueError: there are no weights, or no average to leave out.
    """
    if not isinstance(content.get('state_dict'), dict):
        raise ValueError(
            'the checkpoint has no state_dict; it has the keys '
            f'{sorted(map(str, content))[:10]}'
        )
    weights = collections.OrderedDict(content['state_dict'])
    if not ema:
        if 'ema_state_dict' not in content:
            raise ValueError(
                '--no-ema leaves out an average, and the checkpoint has '
                'none: its weights are those that were trained'
            )
        beside = content['ema_state_dict']
        weights.update({key: beside[f'module.{key}'] for key in weights})
    # Modules read the version of their keys there.
    versions = getattr(content['state_dict'], '_metadata', {})
    weights._metadata = {
        name: {key: value for key, value in entry.items() if key != LEARNED}
        for name, entry in versions.items()
    }
    meta = content.get('meta') or {}
    return dict(
        meta={key: meta[key] for key in DESCRIBING if key in meta},
        state_dict=weights,
    )


def publish(
    source: str, out: str, ema: bool = True, trust: bool = False
) -> Path:
    """Writes the published file, whole or not at all.

    Args:
        source: Path or https URL of a checkpoint.
        out: Path that the new name begins with; a folder that is there, or
            ends in '/', gets a file named like the source.
        ema: See :func:`published`.
        trust: Read a file that can run code of its author.

    Returns:
        ``out`` with the first 8 digits of the file's SHA-256 at its end, as
        OpenMMLab names its files.

    Raises:
        NotADirectoryError: the folder of ``out`` is a file.
        OSError: a file cannot be read or written.
        ValueError: see :func:`published`.
    """
    if out.endswith('/') or Path(out).is_dir():
        out = str(Path(out) / Path(source).stem)
    folder = Path(out).parent
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            f'out must lie in a folder, and {folder} is a file; name another'
        )
    content = read_training_state(source, 'cpu', trust)
    file = io.BytesIO()
    torch.save(published(content, ema), file)
    digest = hashlib.sha256(file.getbuffer()).hexdigest()
    path = Path(f'{out.removesuffix(".pth")}-{digest[:8]}.pth')
    write_atomically(path, file.getbuffer())
    return path


def main(argv: list[str] | None = None) -> int:
    """Reads the command line and publishes; returns the exit code."""
    parser = argparse.ArgumentParser(
        'mmrkkd publish', description=__doc__.split('\n')[0]
    )
    parser.add_argument('checkpoint', help='path or URL of a checkpoint')
    parser.add_argument('out', help='for example student.pth, or a folder')
    parser.add_argument(
        '--no-ema',
        dest='ema',
        action='store_false',
        help='the weights that were trained, not their average',
    )
    add_trust_option(parser)
    args = parser.parse_args(argv)
    try:
        path = publish(
            args.checkpoint,
            args.out,
            ema=args.ema,
            trust=args.trust_checkpoint,
        )
    except (OSError, ValueError) as error:
        print(f'mmrkkd publish: {error}', file=sys.stderr)
        return 1
    print(f'Published as {path}')
    return 0
