"""Which versions and which Python an installation uses."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ROOT / 'requirements'
PYTHONS = ((3, 10), (3, 11), (3, 12))
# The interpreter itself: inside an environment (perhaps the very one that is
# to be made anew) sys.executable is a link that the environment owns.
THIS_PYTHON = getattr(sys, '_base_executable', sys.executable)
OPTIONS = ('stack', 'torch', 'torchvision', 'ops')


class InstallError(Exception):
    """Something the user has to mend; the message says what to type."""


def load_stack():
    """mmrkkd/_stack.py by its path: the package needs a stack that works.

    Inside an installed wheel tools/ is mmrkkd/.mim/tools/.
    """
    places = (ROOT / 'mmrkkd' / '_stack.py', ROOT.parent / '_stack.py')
    path = next(place for place in places if place.is_file())
    spec = importlib.util.spec_from_file_location('mmrkkd_stack', path)
    module = importlib.util.module_from_spec(spec)
    # dataclasses looks its module up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def read_pins(name):
    """Distribution -> exact version, from requirements/``name``.txt."""
    text = (REQUIREMENTS / f'{name}.txt').read_text(encoding='utf-8')
    found = re.findall(r'^([\w-]+)==(\S+)', text, re.MULTILINE)
    return dict(found)


def resolve_options(given, remembered, stack):
    """What to install: options given now, then remembered ones, then pins.

    Args:
        given: Option -> value or None, from the command line.
        remembered: The same, from the last installation into this folder.
        stack: The module mmrkkd/_stack.py.

    Returns:
        The options the user chose (to be remembered), and all of them with
        every gap filled.
    """
    chosen = {k: v for k, v in remembered.items() if k in OPTIONS and v}
    chosen.update({k: v for k, v in given.items() if v})
    if given.get('torch') and not given.get('torchvision'):
        # A remembered torchvision belonged to the torch before.
        chosen.pop('torchvision', None)
    pins = read_pins('torch')
    full = {'stack': stack.DEFAULT_FAMILY, 'ops': 'auto', **pins, **chosen}
    if full['stack'] not in stack.FAMILIES:
        known = ' or '.join(stack.FAMILIES)
        raise InstallError(f'STACK must be {known}, got {full["stack"]!r}.')
    if full['ops'] not in ('auto', 'cpu', 'cuda'):
        raise InstallError(
            f'OPS must be auto, cpu or cuda, got {full["ops"]!r}.'
        )
    if full['torch'] != pins['torch'] and 'torchvision' not in chosen:
        try:
            full['torchvision'] = stack.torchvision_for(full['torch'])
        except ValueError as error:
            raise InstallError(
                f'TORCH: {error}. Or give TORCHVISION= as well.'
            ) from None
    return chosen, full


# -- which Python -----------------------------------------------------------


def probe_python(command):
    """(major, minor) of an interpreter; None if it does not run.

    It has to be run to know: a version manager's shim stands on the PATH
    also for versions that it refuses to start.
    """
    code = 'import sys; print(*sys.version_info[:2])'
    try:
        done = subprocess.run(
            [command, '-c', code], capture_output=True, text=True, check=True
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def choose_python(wanted, probe=probe_python):
    """The interpreter for the environment.

    Args:
        wanted: What the user asked for by PYTHON=, or None.
        probe: Command -> (major, minor) or None.

    Returns:
        The command to run it by.

    Raises:
        InstallError: there is none that fits.
    """
    names = [f'python{major}.{minor}' for major, minor in reversed(PYTHONS)]
    candidates = [wanted] if wanted else [THIS_PYTHON, *names]
    seen = []
    for command in candidates:
        version = probe(command)
        if version in PYTHONS:
            return command
        if version:
            seen.append(f'{command} is {version[0]}.{version[1]}')
        elif wanted:
            seen.append(f'{command} does not run')
    raise InstallError(
        'Python 3.10, 3.11 or 3.12 is needed; ' + ', '.join(seen) + '.\n'
        'Install one and name it: make install PYTHON=python3.11'
    )


def check_venv_module(python):
    """Debian and Ubuntu split ensurepip off their python3."""
    command = [python, '-c', 'import ensurepip, venv']
    if subprocess.run(command, capture_output=True, check=False).returncode:
        version = '.'.join(map(str, probe_python(python)))
        raise InstallError(
            f'{python} cannot create environments: its venv module is '
            'missing.\nOn Debian and Ubuntu: '
            f'sudo apt-get install python{version}-venv'
        )
