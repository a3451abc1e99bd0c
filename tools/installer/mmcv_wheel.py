"""The cache of built mmcv wheels, and what a build needs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from .choices import InstallError, probe_python


def wheel_key(facts):
    """Folder name of a built mmcv in the cache.

    Two installations may share a wheel only where all of this agrees: the
    extension is compiled against one torch, one CUDA and one Python.

    Args:
        facts: mmcv (distribution), mmcv_version, torch (with its local
            version), cuda ('13.0' or None), ops ('cpu' or 'cuda'), arches
            (compute capabilities the CUDA operators are for), python
            ('cp311'), machine ('x86_64') and libc ('glibc2.36').
    """
    ops = 'cpu-ops'
    if facts['ops'] == 'cuda':
        ops = 'cuda-ops-' + re.sub(r'[^0-9.+a-zA-Z]+', '_', facts['arches'])
    parts = (
        f'{facts["mmcv"]}-{facts["mmcv_version"]}',
        f'torch{facts["torch"]}',
        f'cuda{facts["cuda"]}' if facts['cuda'] else 'nocuda',
        ops,
        facts['python'],
        facts['machine'],
        facts['libc'],
    )
    return '_'.join(parts)


# Run by the environment's Python: only its torch knows.
PROBE_TORCH = """
import json, os, platform, sys
import torch
gpu = torch.cuda.is_available()
found = {torch.cuda.get_device_capability(i)
         for i in range(torch.cuda.device_count())} if gpu else set()
print(json.dumps({
    'torch': torch.__version__,
    'cuda': torch.version.cuda,
    'gpu': gpu,
    'arches': ';'.join('%d.%d' % pair for pair in sorted(found)),
    'python': 'cp%d%d' % sys.version_info[:2],
    'machine': platform.machine(),
    'libc': ''.join(platform.libc_ver()) or 'libc',
}))
"""


def decide_ops(facts, ops):
    """Whether mmcv gets CUDA operators; mmcv's own setup decides the same.

    Args:
        facts: What PROBE_TORCH prints.
        ops: 'cpu', 'cuda' or 'auto' (CUDA where torch sees a GPU).

    Returns:
        ``facts`` with 'ops' and, for CUDA, 'arches' filled in.

    Raises:
        InstallError: CUDA operators are wanted and cannot be compiled.
    """
    forced = ops == 'cuda' or os.environ.get('FORCE_CUDA') == '1'
    wants = ops != 'cpu' and (facts['gpu'] or forced)
    facts = {**facts, 'ops': 'cuda' if wants else 'cpu'}
    if not wants:
        return facts
    if not facts['cuda']:
        raise InstallError(
            'CUDA operators are asked for, but the installed torch is a '
            'build without CUDA.\nGive OPS=cpu, or install a CUDA build.'
        )
    facts['arches'] = os.environ.get('TORCH_CUDA_ARCH_LIST', facts['arches'])
    if not facts['arches']:
        raise InstallError(
            'CUDA operators are asked for, but there is no GPU to ask which '
            'kind they are for.\nName it: '
            'TORCH_CUDA_ARCH_LIST=8.0 make install OPS=cuda'
        )
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    if not shutil.which('nvcc', path=f'{home}/bin' if home else None):
        raise InstallError(
            'torch sees a GPU, but there is no CUDA compiler (nvcc) to '
            "build mmcv's CUDA operators with.\nInstall the CUDA toolkit "
            f'{facts["cuda"]} (CUDA_HOME must point to it), or go without '
            'them, which is\nenough for CPU runs and for classification: '
            'make install OPS=cpu'
        )
    return facts


def check_compiler(python):
    """A compiler and Python's headers, looked for before any download."""
    compiler = os.environ.get('CXX', 'c++')
    if shutil.which(compiler.split()[0]) is None:
        raise InstallError(
            f'mmcv has to be compiled and there is no C++ compiler '
            f'({compiler}).\nOn Debian and Ubuntu: '
            'sudo apt-get install build-essential'
        )
    code = 'import sysconfig; print(sysconfig.get_paths()["include"])'
    done = subprocess.run(
        [python, '-c', code], capture_output=True, text=True, check=True
    )
    if not (Path(done.stdout.strip()) / 'Python.h').is_file():
        version = '.'.join(map(str, probe_python(python)))
        raise InstallError(
            f'mmcv has to be compiled and {python} has no Python.h.\n'
            f'On Debian and Ubuntu: sudo apt-get install python{version}-dev'
        )


def cache_folder():
    """Folder of everything that is kept between installations.

    Raises:
        InstallError: there is no home directory to keep it in.
    """
    try:
        home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    except RuntimeError as error:
        raise InstallError(
            'built wheels are kept in the home directory, and this user has '
            'none.\nName another folder: XDG_CACHE_HOME=/tmp/cache make '
            'install'
        ) from error
    return Path(home) / 'mmrkkd'


@contextlib.contextmanager
def locked(name):
    """Keeps a second installation out while one works on ``name``."""
    folder = cache_folder() / 'locks'
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    with open(folder / digest, 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'another installation works on {name}: waiting', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        # Closing the file gives the lock back, also when the process dies.
        yield


def is_likely_cached(dist, version, torch, python):
    """Whether the cache may spare the compilation.

    A guess: which build of torch it will be is known only once it is there.
    """
    tag = 'cp{}{}'.format(*probe_python(python))
    pattern = f'{dist}-{version}_torch{torch}*_{tag}_*/*.whl'
    return any((cache_folder() / 'wheels').glob(pattern))


def inspect_wheel(path):
    """Whether a wheel is a whole mmcv with operators, and which ones.

    Returns:
        'cuda', 'cpu' or None for a wheel that must not be used.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
            found = [n for n in names if re.match(r'mmcv/_ext\..*so$', n)]
            # testzip reads everything, so a cut-off file is noticed here.
            if not found or wheel.testzip():
                return None
            return 'cuda' if b'cudaLaunch' in wheel.read(found[0]) else 'cpu'
    except (OSError, zipfile.BadZipFile):
        return None


def find_wheel(folder, ops):
    """A usable wheel in a folder of the cache, or None."""
    for path in sorted(folder.glob('*.whl')):
        if inspect_wheel(path) == ops:
            return path
    return None


def store_wheel(path, folder):
    """Put a wheel into the cache, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    # A rename is atomic within one file system only, so the copy comes first
    # and under a name that find_wheel does not look at.
    partial = folder / f'{path.name}.{os.getpid()}.part'
    try:
        shutil.copyfile(path, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def unpack_source(archive, folder):
    """Unpack a source package; returns the folder with its setup.py."""
    if folder.is_dir():
        # An interrupted build: its object files are taken up again.
        return folder
    partial = folder.with_name(f'{folder.name}.{os.getpid()}.part')
    shutil.rmtree(partial, ignore_errors=True)
    # Python releases before mid-2023 have no filter.
    safe = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
    with tarfile.open(archive) as tar:
        tar.extractall(partial, **safe)
    os.replace(next(partial.iterdir()), folder)
    partial.rmdir()
    return folder


# -- building ---------------------------------------------------------------


def probe_torch(python):
    """The facts about an environment that a wheel depends on."""
    done = subprocess.run(
        [str(python), '-c', PROBE_TORCH],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InstallError(f'torch does not import:\n{done.stderr}')
    # Some builds of torch print on import; ours is the last line.
    return json.loads(done.stdout.splitlines()[-1])


def provide(journal, python, dist, version, ops):
    """The mmcv wheel for the torch that is installed, cached or built.

    Args:
        journal: Runs and reports the stages.
        python: Interpreter of the environment, with torch installed.
        dist: Distribution, 'onedl-mmcv' or 'mmcv'.
        version: Its version.
        ops: 'auto', 'cpu' or 'cuda', see ``decide_ops``.

    Returns:
        The key of the build and the path of the wheel.
    """
    facts = {**probe_torch(python), 'mmcv': dist, 'mmcv_version': version}
    facts = decide_ops(facts, ops)
    key = wheel_key(facts)
    folder = cache_folder() / 'wheels' / key
    with locked(key):
        wheel = find_wheel(folder, facts['ops'])
        if wheel:
            journal.say(f'{dist} {version} was built before: {folder}')
        else:
            wheel = _build(journal, python, facts, folder)
    return key, wheel


def build_environment(facts, environ):
    """Environment variables of the build."""
    cores = str(len(os.sched_getaffinity(0)))
    env = {
        'MMCV_WITH_OPS': '1',
        # Debug information doubles the time, and nobody reads it.
        'CFLAGS': f'{environ.get("CFLAGS", "")} -g0'.strip(),
        'MAX_JOBS': environ.get('MAX_JOBS', cores),
    }
    if facts['ops'] == 'cuda':
        env['FORCE_CUDA'] = '1'
        env['TORCH_CUDA_ARCH_LIST'] = facts['arches']
    else:
        env['FORCE_CUDA'] = '0'
        env['CUDA_VISIBLE_DEVICES'] = ''
    return env


def _build(journal, python, facts, folder):
    check_compiler(python)
    dist, version = facts['mmcv'], facts['mmcv_version']
    env = build_environment(facts, os.environ)
    build = cache_folder() / 'build' / folder.name
    build.mkdir(parents=True, exist_ok=True)
    pip = [python, '-m', 'pip', '--no-input', '--disable-pip-version-check']
    options = ['--no-deps', '--no-build-isolation']
    journal.run(
        f'downloading the source of {dist} {version}',
        [*pip, 'download', *options, '--no-binary', dist]
        + ['--dest', build, f'{dist}=={version}'],
        env=env,
    )
    source = unpack_source(next(build.glob('*.tar.gz')), build / 'source')
    usual = '25 minutes or more' if facts['ops'] == 'cuda' else '5 minutes'
    # From a folder, not by name: pip caches what it builds by name without
    # regard to torch, and ninja takes up an interrupted build in the folder.
    journal.run(
        f'compiling {dist} {version} with {facts["ops"]} operators '
        f'(about {usual} on two cores, once)',
        [*pip, 'wheel', '-v', *options]
        + ['--wheel-dir', build / 'wheel', source],
        env=env,
        hint='Usual causes: too little memory (MAX_JOBS=1 make install needs '
        'less), or a CUDA\ncompiler of another major version than that of '
        f'torch, {facts["cuda"]} (OPS=cpu does\nwithout). make install again '
        'goes on from here.',
    )
    wheel = next((build / 'wheel').glob('*.whl'))
    built = inspect_wheel(wheel)
    if built == facts['ops']:
        wheel = store_wheel(wheel, folder)
    # Kept after a failure only, to go on from there.
    shutil.rmtree(build)
    if built != facts['ops']:
        raise InstallError(
            f'the built mmcv has {built or "no"} operators instead of '
            f'{facts["ops"]}.\nPlease report it with the logs in '
            f'{journal.folder}.'
        )
    return wheel
