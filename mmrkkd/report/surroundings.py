"""Where and with what a run was made."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    'mmrkkd',
    'torch',
    'torchvision',
    'onedl-mmengine',
    'mmengine',
    'onedl-mmcv',
    'mmcv',
    'onedl-mmdetection',
    'mmdet',
    'onedl-mmpretrain',
    'mmpretrain',
    'numpy',
)


def surroundings(root: str | Path) -> dict:
    """Versions, commit and hardware, for the record.

    Args:
        root: The checkout.

    Returns:
        ``versions`` (by package), ``commit``, ``hardware`` (``processor``,
        ``cores``, ``memory_gib``, ``device``), ``python`` and ``system``.
    """
    return dict(
        versions=versions(),
        commit=commit(root),
        hardware=dict(
            processor=processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(
                os.sysconf('SC_PAGE_SIZE')
                * os.sysconf('SC_PHYS_PAGES')
                / 2**30,
                1,
            ),
            device=(
                torch.cuda.get_device_name()
                if torch.cuda.is_available()
                else 'CPU'
            ),
        ),
        python=platform.python_version(),
        system=platform.platform(),
    )


def versions() -> dict[str, str]:
    """Those of :data:`PACKAGES` that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """What the processor calls itself."""
    try:
        with open('/proc/cpuinfo') as file:
            names = [
                line.split(':', 1)[1].strip()
                for line in file
                if line.startswith('model name')
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def commit(root: str | Path) -> str:
    """The commit of a checkout, with '+' where files differ from it.

    Args:
        root: The checkout's own folder. Of any other it is 'unknown': an
            installed package may lie below somebody else's repository.
    """
    top = output_of('git', '-C', str(root), 'rev-parse', '--show-toplevel')
    if Path(top).resolve() != Path(root).resolve():
        return 'unknown'
    head = output_of('git', '-C', str(root), 'rev-parse', 'HEAD')
    changed = output_of('git', '-C', str(root), 'status', '--porcelain')
    return head + '+' * (head != 'unknown' and bool(changed))


def output_of(*command: str) -> str:
    """What a command prints; 'unknown' where it fails."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def origin(results: Sequence[dict]) -> list[str]:
    """Where results come from; what differs between them is told.

    Args:
        results: What the tools recorded of runs: ``attempts``, each with
            ``commit``, ``hardware``, ``versions``, ``side_by_side`` and
            ``threads``.

    Returns:
        Sentences.
    """
    lines = []
    attempts = [a for r in results for a in r.get('attempts', ())]
    for name, title in (
        ('commit', 'Commit'),
        ('hardware', 'Hardware'),
        ('versions', 'Versions'),
        ('side_by_side', 'Cells side by side'),
        ('threads', 'Threads for each'),
    ):
        found = list(dict.fromkeys(_plain(a.get(name)) for a in attempts))
        if len(found) == 1:
            lines.append(f'{title}: {found[0]}.')
        elif found:
            lines.append(
                f'{title}: NOT THE SAME FOR ALL: {" / ".join(found)}.'
            )
    interrupted = sum(len(r.get('attempts', ())) > 1 for r in results)
    if interrupted:
        lines.append(
            f'{interrupted} cells were interrupted and went on from their '
            'last checkpoint.'
        )
    return lines


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{name} {text}' for name, text in value.items())
    return str(value)
