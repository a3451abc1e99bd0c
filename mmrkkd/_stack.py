"""What mmrkkd needs around it, and what to type where it is missing.

Only the standard library is imported at module level: ``mmrkkd.registry``
runs this file before it needs anything else, and the tools load it by path
where nothing is installed at all.

The checks look at files and package metadata, then load the two compiled
extensions against the torch that is there (a few milliseconds). A package is
imported for real only where the files look wrong, to be sure before refusing.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

# Import name -> distribution, for each family. Both install the same import
# names, so in one environment they overwrite each other's files.
FAMILIES = {
    'onedl': {
        'mmengine': 'onedl-mmengine',
        'mmcv': 'onedl-mmcv',
        'mmdet': 'onedl-mmdetection',
        'mmpretrain': 'onedl-mmpretrain',
    },
    'openmmlab': {
        'mmengine': 'mmengine',
        'mmcv': 'mmcv',
        'mmdet': 'mmdet',
        'mmpretrain': 'mmpretrain',
    },
}
DEFAULT_FAMILY = 'onedl'
MIN_TORCH = '2.1'
PIP = 'python -m pip'


@dataclass(frozen=True)
class Problem:
    """One thing that keeps mmrkkd from working.

    Args:
        name: The package concerned.
        found: What is there instead of what is needed.
        command: What to type to mend it, for a POSIX shell.
    """

    name: str
    found: str
    command: str


class StackError(RuntimeError):
    """The packages mmrkkd builds on are missing, broken or mixed.

    No ImportError: MMEngine swallows those when it meets a scope such as
    ``mmrkkd.`` in a config, and says that the type is not registered.
    """


def check_stack() -> None:
    """Refuse to go on with a stack that cannot work.

    Raises:
        StackError: something is wrong; one message lists everything found
            and the command that mends it.
    """
    problems = find_problems()
    if problems:
        raise StackError(describe(problems))


def describe(problems: list[Problem]) -> str:
    """One message for all ``problems``, each with its command."""
    count = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
    lines = [f'mmrkkd cannot work in {sys.prefix}: {count}.']
    for number, problem in enumerate(problems, 1):
        lines.append(f'  {number}. {problem.name}: {problem.found}')
        lines.append(f'     mend it with: {problem.command}')
    lines.append(
        'In a checkout of mmrkkd, `make install` builds a working .venv and '
        '`make doctor` checks it.'
    )
    lines.append(
        'The losses alone (mmrkkd.losses, mmrkkd.ops) need torch and nothing '
        'else.'
    )
    return '\n'.join(lines)


def find_problems() -> list[Problem]:
    """Everything that is wrong, most basic first; empty if all is well."""
    mixed = _mixed_families()
    torch, torch_problems = _check_torch()
    problems = mixed + torch_problems + _check_torchvision(torch)
    if mixed:
        # Whatever else is wrong with them comes from that, or is found when
        # one family is left.
        return problems
    problems += _check_mmengine()
    problems += _check_mmcv(torch)
    problems += _check_codebases()
    problems += _check_transformers()
    return problems


# -- what is there ----------------------------------------------------------


def find_version(distribution: str) -> str | None:
    """Installed version of a distribution, None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def package_folder(name: str) -> Path | None:
    """Folder of an importable package, found without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    # Without an __init__.py it is what a failed uninstall left behind.
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def find_extension(name: str, stem: str) -> Path | None:
    """Compiled module ``stem`` of package ``name``, as a file."""
    folder = package_folder(name)
    for suffix in EXTENSION_SUFFIXES if folder else ():
        if (folder / f'{stem}{suffix}').is_file():
            return folder / f'{stem}{suffix}'
    return None


def detect_family() -> str:
    """The family to complete: that of mmcv, else one that is begun."""
    owners = [f for f in FAMILIES if find_version(FAMILIES[f]['mmcv'])]
    begun = [
        family
        for family, names in FAMILIES.items()
        if any(find_version(dist) for dist in names.values())
    ]
    for found in (owners, begun):
        if len(found) == 1:
            return found[0]
    return DEFAULT_FAMILY


def version_key(version: str) -> tuple[int, ...]:
    """Order of release versions; a pre-release sorts before its release."""
    match = re.match(r'\d+(?:\.\d+)*', version)
    release = [int(part) for part in match[0].split('.')] if match else []
    release = (release + [0, 0, 0])[:3]
    early = re.match(r'\d+(\.\d+)*\.?(a|b|rc|dev)', version)
    return (*release, -1 if early else 0)


# -- what to type -----------------------------------------------------------


@functools.cache
def read_pins() -> dict[str, str]:
    """Distribution -> pinned requirement, from the one place they stand.

    In a checkout that is requirements/; an installed mmrkkd carries the same
    lines in its metadata, as extras.
    """
    lines = []
    folder = Path(__file__).resolve().parent.parent / 'requirements'
    if (folder / 'torch.txt').is_file():
        for name in ('torch', *FAMILIES):
            lines += (folder / f'{name}.txt').read_text().splitlines()
    else:
        try:
            lines = metadata.requires('mmrkkd') or []
        except metadata.PackageNotFoundError:
            lines = []
    pins = {}
    for line in lines:
        requirement = line.split(';')[0].split('#')[0].replace(' ', '')
        match = re.match(r'([A-Za-z0-9._-]+)[=<>~!]', requirement)
        if match:
            pins[match[1]] = requirement
    return pins


def _pip_install(*distributions: str, options: str = '') -> str:
    pins = read_pins()
    wanted = [shlex.quote(pins.get(dist, dist)) for dist in distributions]
    return ' '.join([f'{PIP} install', *options.split(), *wanted])


def build_mmcv_command(dist: str, again: bool = False) -> str:
    # No isolation: the build must see the torch it is for. No cache: pip
    # keeps wheels it built by source package alone, whatever torch was there.
    options = f'--no-build-isolation --no-cache-dir --no-binary {dist}'
    if again:
        options += ' --no-deps --force-reinstall'
    tools = f"{PIP} install 'setuptools<82' wheel ninja"
    return f'{tools} && {_pip_install(dist, options=options)}'


def _install_torch(again: bool = False) -> str:
    options = '--force-reinstall' if again else ''
    return _pip_install('torch', 'torchvision', options=options)


# -- the checks -------------------------------------------------------------


def _mixed_families() -> list[Problem]:
    mixed = []
    for name in FAMILIES[DEFAULT_FAMILY]:
        dists = [FAMILIES[family][name] for family in FAMILIES]
        if all(find_version(dist) for dist in dists):
            mixed.append(' over '.join(dists))
    if not mixed:
        return []
    # Uninstalling one of them takes the other's files with it, so all of
    # both go, and one family comes back.
    gone = [
        dist
        for family in FAMILIES.values()
        for dist in family.values()
        if find_version(dist)
    ]
    keep = FAMILIES[DEFAULT_FAMILY]
    rest = [dist for name, dist in keep.items() if name != 'mmcv']
    return [
        Problem(
            'OpenMMLab',
            'two families with the same import names are installed over '
            'each other (' + ', '.join(mixed) + ')',
            f'{PIP} uninstall -y {" ".join(gone)} && '
            f'{build_mmcv_command(keep["mmcv"])} && {_pip_install(*rest)}',
        )
    ]


def _check_torch():
    """torch itself, or None, and what is wrong with it."""
    if package_folder('torch') is None:
        return None, [Problem('torch', 'not installed', _install_torch())]
    try:
        torch = importlib.import_module('torch')
        version = torch.__version__
    except Exception as error:
        # Whatever a broken installation raises, it is the thing to report.
        found = f'installed, but importing it fails: {_first_line(error)}'
        return None, [Problem('torch', found, _install_torch(again=True))]
    if version_key(version) < version_key(MIN_TORCH):
        found = f'{version} is too old, {MIN_TORCH} or newer is needed'
        return None, [Problem('torch', found, _install_torch())]
    return torch, []


def _check_torchvision(torch) -> list[Problem]:
    if package_folder('torchvision') is None:
        # MMDetection does without; MMPretrain's data pipeline does not.
        if package_folder('mmpretrain') is None:
            return []
        found = 'not installed, and mmpretrain needs it'
        return [Problem('torchvision', found, _match_torchvision(torch))]
    if torch is None:
        return []
    reason = None
    extension = find_extension('torchvision', '_C')
    if extension is not None:
        reason = _load_error(extension)
    wanted = _torch_of_torchvision()
    have = torch.__version__.split('+')[0]
    if reason is None and extension and wanted in (None, have):
        return []
    # The metadata of a custom build may be wrong: ask torchvision itself.
    try:
        importlib.import_module('torchvision')
    except Exception as error:
        found = (
            f'{find_version("torchvision")} does not match torch '
            f'{torch.__version__}: {_first_line(error)}'
        )
        return [Problem('torchvision', found, _match_torchvision(torch))]
    return []


def _torch_of_torchvision() -> str | None:
    """Version of torch that the installed torchvision was made for."""
    try:
        requires = metadata.requires('torchvision') or []
    except metadata.PackageNotFoundError:
        return None
    for line in requires:
        match = re.match(r'torch\s*\(?==\s*([0-9][^\s;,)+]*)', line)
        if match:
            return match[1]
    return None


def torchvision_for(torch_version: str) -> str:
    """Version of torchvision that belongs to a version of torch 2.

    Raises:
        ValueError: ``torch_version`` is not 2.minor.patch.
    """
    match = re.fullmatch(r'2\.(\d+)\.(\d+)(\+.*)?', torch_version)
    if not match:
        raise ValueError(
            f'torch must be a version 2.minor.patch, got {torch_version!r}'
        )
    return f'0.{int(match[1]) + 15}.{match[2]}'


def _match_torchvision(torch) -> str:
    try:
        version = torch.__version__.split('+')[0]
        wanted = f'torchvision=={torchvision_for(version)}'
    except (AttributeError, ValueError):
        return _install_torch()
    if torch.version.cuda is None:
        # The published torchvision is linked against the CUDA build of torch
        # and cannot be loaded with another, so the two come together.
        return f'{PIP} install --force-reinstall torch=={version} {wanted}'
    return f'{PIP} install --force-reinstall --no-deps {wanted}'


def _check_mmengine() -> list[Problem]:
    folder = package_folder('mmengine')
    dist = FAMILIES[detect_family()]['mmengine']
    if folder is None:
        return [Problem('mmengine', 'not installed', _pip_install(dist))]
    source = folder / 'utils' / 'package_utils.py'
    needs_it = source.is_file() and 'import pkg_resources' in source.read_text(
        encoding='utf-8'
    )
    if not needs_it or package_folder('pkg_resources') is not None:
        return []
    found = (
        f'{_version_in(folder)} needs pkg_resources, which the installed '
        f'setuptools {find_version("setuptools")} does not have'
    )
    return [Problem('mmengine', found, f"{PIP} install 'setuptools<82'")]


def _check_mmcv(torch) -> list[Problem]:
    folder = package_folder('mmcv')
    dist = FAMILIES[detect_family()]['mmcv']
    if folder is None:
        return [Problem('mmcv', 'not installed', build_mmcv_command(dist))]
    version = _version_in(folder)
    again = build_mmcv_command(dist, again=True)
    if find_version('mmcv-lite'):
        again = f'{PIP} uninstall -y mmcv-lite && {again}'
    extension = find_extension('mmcv', '_ext')
    if extension is None:
        found = (
            f'{version} has no mmcv._ext: it is mmcv-lite, or it was built '
            'without torch in sight'
        )
        return [Problem('mmcv', found, again)]
    reason = _load_error(extension) if torch is not None else None
    if reason:
        found = (
            f'mmcv._ext of {version} does not load with torch '
            f'{torch.__version__}, so it was built for another: {reason}'
        )
        return [Problem('mmcv', found, again)]
    return []


def _check_codebases() -> list[Problem]:
    names = ('mmdet', 'mmpretrain')
    family = FAMILIES[detect_family()]
    present = [name for name in names if package_folder(name)]
    if not present:
        return [
            Problem(
                'mmdet, mmpretrain',
                'neither is installed, and one of them is needed',
                _pip_install(family['mmdet'], family['mmpretrain']),
            )
        ]
    problems = []
    for name in present:
        reason = _refusal(name)
        if reason:
            found = f'{_version_in(package_folder(name))}: {reason}'
            problems.append(Problem(name, found, _make_agree(name)))
    return problems


def _check_transformers() -> list[Problem]:
    """Where there is one, MMPretrain builds on what version 5 dropped."""
    folder = package_folder('transformers')
    needed = package_folder('mmpretrain') and find_version('pycocotools')
    source = folder and folder / 'pytorch_utils.py'
    if not (needed and source and source.is_file()):
        return []
    wanted = 'find_pruneable_heads_and_indices'
    if wanted in source.read_text(encoding='utf-8'):
        return []
    found = (
        f'{find_version("transformers")}: mmpretrain cannot be imported '
        f'beside it, {wanted} is gone from it'
    )
    return [Problem('transformers', found, _pip_install('transformers<5'))]


def _make_agree(name: str) -> str:
    """Command that brings ``name`` and mmcv to the versions of one set."""
    family = FAMILIES[detect_family()]
    strangers = [
        names[name]
        for names in FAMILIES.values()
        if names[name] != family[name] and find_version(names[name])
    ]
    steps = []
    if strangers:
        # Before, not after: it would take the new files with it.
        steps.append(f'{PIP} uninstall -y {" ".join(strangers)}')
    mmcv = family['mmcv']
    if read_pins().get(mmcv) != f'{mmcv}=={find_version(mmcv)}':
        steps.append(build_mmcv_command(mmcv, again=True))
    steps.append(_pip_install(family['mmengine'], family[name]))
    return ' && '.join(steps)


def _refusal(name: str) -> str | None:
    """Why package ``name`` refuses the mmcv or mmengine that is there."""
    text = (package_folder(name) / '__init__.py').read_text(encoding='utf-8')
    suspect = False
    for needed in ('mmcv', 'mmengine'):
        folder = package_folder(needed)
        low = _constant(text, f'{needed}_minimum_version')
        high = _constant(text, f'{needed}_maximum_version')
        if folder is None or not low or not high:
            continue
        have = version_key(_version_in(folder))
        suspect |= not version_key(low) <= have < version_key(high)
    if not suspect:
        return None
    # Many users have edited the assertion out; the import has the last word.
    try:
        importlib.import_module(name)
    except AssertionError as error:
        return _first_line(error)
    except Exception:
        # Some other trouble, which a check of its own reports better.
        return None
    return None


def _constant(text: str, name: str) -> str | None:
    match = re.search(rf'^{name}\s*=\s*[\'"]([^\'"]+)', text, re.MULTILINE)
    return match[1] if match else None


def _version_in(folder: Path) -> str:
    """Version a package states in its own version.py.

    Metadata only in second place: with both families installed there are two
    answers there, and the file says which one is really in place.
    """
    source = folder / 'version.py'
    if source.is_file():
        version = _constant(source.read_text(encoding='utf-8'), '__version__')
        if version:
            return version
    # The forks look their own version up in the metadata.
    name = folder.name
    for dist in [names.get(name, name) for names in FAMILIES.values()]:
        if find_version(dist):
            return find_version(dist)
    return 'of unknown version'


def _load_error(extension: Path) -> str | None:
    """Why a compiled extension cannot be loaded; None if it can.

    Its symbols are resolved at once, so an extension made for another torch
    fails here. No Python code of the package runs, which saves its import.
    """
    try:
        ctypes.CDLL(str(extension))
    except OSError as error:
        return _first_line(error)
    return None


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
