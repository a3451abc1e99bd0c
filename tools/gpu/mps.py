"""NVIDIA's multi-process service: small kernels of many processes at once.

Without it a GPU gives its processes turns, and a kernel that fills a tenth of
it has it alone. The service changes no setting of the card; it has folders of
its own here, and ends with the context.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CONTROL = 'nvidia-cuda-mps-control'
FOLDERS = ('CUDA_MPS_PIPE_DIRECTORY', 'CUDA_MPS_LOG_DIRECTORY')
SECONDS_TO_START = 10
# A process that imports torch and uses the GPU.
SECONDS_TO_TRY = 60
TRIAL = "import torch; assert torch.ones(8, device='cuda').sum().item() == 8"


@contextlib.contextmanager
def multi_process_service(folder: Path) -> Iterator[str]:
    """Starts the service for the processes that are started inside.

    Where it is not there, or a small process cannot use the GPU through it,
    everything goes on without it.

    Args:
        folder: For its pipes and logs; a short path, it holds a socket.

    Yields:
        'on', or why it is off.
    """
    if shutil.which(CONTROL) is None:
        yield f'off: no {CONTROL}'
        return
    # Every process would look for it in its own working directory.
    folder = folder.absolute()
    for name, part in zip(FOLDERS, ('pipe', 'log'), strict=True):
        (folder / part).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder / part)
    try:
        failure = _failure([CONTROL, '-d'], SECONDS_TO_START)
        if failure is None:
            failure = _failure([sys.executable, '-c', TRIAL], SECONDS_TO_TRY)
        if failure is not None:
            _quit()
        yield 'on' if failure is None else f'off: {failure}'
    finally:
        _quit()


def _quit() -> None:
    """Ends the service, if it is on; the GPU is used without it then."""
    if FOLDERS[0] in os.environ:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                [CONTROL],
                input='quit\n',
                text=True,
                capture_output=True,
                timeout=SECONDS_TO_START,
            )
    for name in FOLDERS:
        os.environ.pop(name, None)


def _failure(command: list[str], seconds: float) -> str | None:
    """Why a command failed; None if it did not."""
    try:
        # Not captured: a daemon would keep the pipe open.
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f'{command[0]} ended with code {code}' if code else None
