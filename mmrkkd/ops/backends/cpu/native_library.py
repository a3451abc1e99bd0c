"""Builds and loads the C code of this folder, once for each machine.

The sources need nothing but a C compiler and take about two seconds. What
is built stays in the user's cache folder under a name made of everything
that went into it: the sources, the flags, the compiler and the processor.

A shared library is code that runs with the user's rights, so it is loaded
only out of a folder that nobody else can write to; where there is none, a
private temporary folder serves this process alone.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCES = Path(__file__).resolve().parent
# The file that includes all others.
MAIN_SOURCE = SOURCES / 'mmrkkd_native.c'
FLAGS = ('-O3', '-std=gnu11', '-fPIC', '-shared', '-pthread')
# The second is for compilers that do not know the first on their processor.
TUNINGS = (('-march=native',), ())
BUILD_SECONDS = 120
SWITCH = 'MMRKKD_NATIVE'

logger = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1)
def native_library() -> ctypes.CDLL | None:
    """The compiled C code, or None where it cannot be had.

    The first call of a machine compiles it; later processes load it within
    milliseconds. Why there is none is logged once, as a warning: slower
    code takes its place. ``MMRKKD_NATIVE=0`` in the environment asks for
    that slower code.
    """
    if os.environ.get(SWITCH, '1') == '0':
        logger.info('%s=0: the PyTorch implementations are used', SWITCH)
        return None
    try:
        library = _find_or_build()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.warning(
            'mmrkkd uses its slower PyTorch implementations on the CPU: its '
            'C code could not be built or loaded (%s). Install a C compiler '
            '(Debian and Ubuntu: apt-get install gcc libc6-dev), or set %s=0 '
            'to stop trying.',
            error,
            SWITCH,
        )
        return None
    use_openmp(library)
    return library


def use_openmp(library: ctypes.CDLL) -> None:
    """Lends PyTorch's OpenMP team to the C code, if it has one.

    A forked child must not use it: the team's threads are not there.
    """
    torch_cpu = Path(torch.__file__).parent / 'lib' / 'libtorch_cpu.so'
    try:
        # Found among what PyTorch is linked with: libgomp, or Intel's or
        # LLVM's runtime, which answer to the same name.
        entry = ctypes.CDLL(str(torch_cpu)).GOMP_parallel
    except (OSError, AttributeError):
        return
    library.mmrkkd_use_openmp(entry)
    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(
            after_in_child=lambda: library.mmrkkd_use_openmp(None)
        )


def _find_or_build() -> ctypes.CDLL:
    compiler = find_compiler()
    folder = cache_folder()
    if folder is None:
        with tempfile.TemporaryDirectory(prefix='mmrkkd-') as private:
            # The library stays mapped after its file is gone.
            target = Path(private) / 'mmrkkd.so'
            build(compiler, target)
            return _load(target)
    target = folder / f'mmrkkd-{build_key(compiler)}.so'
    if not target.exists():
        build(compiler, target)
    return _load(target)


def find_compiler() -> list[str]:
    """The command of the C compiler: $CC, or the first of the usual names.

    Raises:
        RuntimeError: there is none.
    """
    for name in (os.environ.get('CC', ''), 'cc', 'gcc', 'clang'):
        command = shlex.split(name)
        if command and shutil.which(command[0]):
            return [shutil.which(command[0]), *command[1:]]
    raise RuntimeError('no C compiler is found; set CC or install one')


def build_key(compiler: list[str]) -> str:
    """A name for one build: sources, flags, compiler and processor.

    The compiler is known by its file rather than by running it, and code
    made for one processor's instructions must never reach another's.
    """
    parts = [repr((FLAGS, TUNINGS, compiler, platform.machine()))]
    parts += [
        path.name + path.read_text()
        for path in sorted(SOURCES.iterdir())
        if path.suffix in ('.c', '.h')
    ]
    binary = Path(compiler[0]).resolve()
    status = binary.stat()
    parts.append(f'{binary} {status.st_size} {status.st_mtime_ns}')
    parts.append(_processor())
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:24]


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    # 'flags' on x86, 'Features' and 'CPU part' on Arm.
    wanted = ('model name', 'flags', 'features', 'cpu part', 'isa')
    found = {line for line in lines if line.lower().startswith(wanted)}
    return '\n'.join(sorted(found))


def cache_folder() -> Path | None:
    """The user's own cache folder, or None if others could write to it."""
    base = os.environ.get('XDG_CACHE_HOME') or ''
    try:
        # The specification says to ignore a relative path.
        base = Path(base) if os.path.isabs(base) else Path.home() / '.cache'
        folder = base / 'mmrkkd'
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        safe = (
            all(
                _only_mine_can_change(path)
                for path in (folder.resolve(), *folder.resolve().parents)
            )
            and not folder.stat().st_mode & stat.S_IWGRP
        )
    except (OSError, RuntimeError):
        return None
    return folder.resolve() if safe and os.access(folder, os.W_OK) else None


def _only_mine_can_change(path: Path) -> bool:
    """Whether nobody but this user, and root, can replace what is in it."""
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return False
    # In a sticky folder such as /tmp others cannot rename what is mine.
    return not status.st_mode & stat.S_IWOTH or bool(
        status.st_mode & stat.S_ISVTX and path.is_dir()
    )


def build(compiler: list[str], target: Path) -> None:
    """Compiles to ``target`` in one atomic step.

    Processes that start together each build their own file; the last one
    to finish replaces equals by equals.

    Raises:
        RuntimeError: the compiler refuses; its last words are in the text.
    """
    handle, name = tempfile.mkstemp(
        suffix='.so', prefix='building-', dir=target.parent
    )
    os.close(handle)
    try:
        for tuning in TUNINGS:
            done = subprocess.run(
                [
                    *compiler,
                    *tuning,
                    *FLAGS,
                    '-o',
                    name,
                    str(MAIN_SOURCE),
                    '-lm',
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=False,
            )
            if done.returncode == 0:
                os.chmod(name, 0o700)
                os.replace(name, target)
                return
        raise RuntimeError(
            f'{shlex.join(compiler)} failed: {done.stderr.strip()[-500:]}'
        )
    finally:
        Path(name).unlink(missing_ok=True)


def _load(target: Path) -> ctypes.CDLL:
    if not _only_mine_can_change(target):
        raise RuntimeError(f'others can write to {target}: delete it')
    return ctypes.CDLL(str(target))
