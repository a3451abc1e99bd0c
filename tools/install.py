#!/usr/bin/env python3
"""Builds an environment in which mmrkkd works: `make install` runs this.

Only the standard library is used. Every stage can be interrupted and taken up
again; where nothing has changed since the last time it does nothing. The one
long step, compiling mmcv, is kept in a wheel cache of the user's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

from installer import choices, mmcv_wheel
from installer.choices import PYTHONS, REQUIREMENTS, ROOT, InstallError
from installer.journal import Journal

# Raised when what a stage does changes, so that old environments are redone.
LAYOUT = 1
# Of mmrkkd: what its tests and its documentation need.
EXTRAS = 'dev,docs,report'


class State:
    """What an environment remembers of its installation, as JSON files."""

    def __init__(self, venv):
        self.folder = venv / 'mmrkkd-install'

    def read(self, name):
        try:
            return json.loads((self.folder / f'{name}.json').read_text())
        except (OSError, ValueError):
            return {}

    def write(self, name, value):
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f'{name}.part'
        partial.write_text(json.dumps(value, indent=2) + '\n')
        os.replace(partial, self.folder / f'{name}.json')


class Installer:
    """The stages, in order.

    Args:
        venv: Folder of the environment.
        options: Every option of choices.OPTIONS, filled in.
        chosen: Those of them that the user chose, to be remembered.
        stack: The module mmrkkd/_stack.py.
    """

    def __init__(self, venv, options, chosen, stack):
        self.venv = venv
        self.options = options
        self.chosen = chosen
        self.stack = stack
        self.family = stack.FAMILIES[options['stack']]
        self.pins = choices.read_pins(options['stack'])
        self.python = venv / 'bin' / 'python'
        self.state = State(venv)
        self.journal = Journal(self.state.folder / 'logs')
        self.pip = [self.python, '-m', 'pip', '--no-input']
        self.pip.append('--disable-pip-version-check')

    def run(self):
        """Every stage; each finds out itself what is left to do."""
        # From here on an interrupted run remembers what it was about.
        self.state.write('options', self.chosen)
        self.state.write('done', {})
        self.remove_other_family()
        self.journal.run(
            'installing the build tools',
            [*self.pip, 'install', '-r', REQUIREMENTS / 'build.txt'],
        )
        self.install_torch()
        key, wheel = mmcv_wheel.provide(
            self.journal,
            self.python,
            self.family['mmcv'],
            self.pins[self.family['mmcv']],
            self.options['ops'],
        )
        self.install_family(key, wheel)
        log = self.journal.run(
            'checking the installation (tools/doctor.py)',
            [self.python, ROOT / 'tools' / 'doctor.py'],
            hint='The lines above say what to type.',
        )
        self.state.write('done', {'fingerprint': self.fingerprint()})
        self.journal.say(log.read_text().splitlines()[-1])

    # -- is there anything to do? -------------------------------------------

    def fingerprint(self):
        """Changes with everything an installation depends on."""
        digest = hashlib.sha256()
        for path in [*sorted(REQUIREMENTS.glob('*.txt')), ROOT / 'setup.py']:
            digest.update(path.name.encode() + path.read_bytes())
        options = sorted(self.options.items())
        facts = [LAYOUT, str(ROOT), str(self.venv), options]
        digest.update(json.dumps(facts).encode())
        return digest.hexdigest()

    def installed(self):
        """Normalised distribution -> version, by the folders' names alone."""
        found = {}
        for path in self.venv.glob('lib/python3.*/site-packages/*.dist-info'):
            name, _, version = path.name[: -len('.dist-info')].partition('-')
            found[name.lower().replace('_', '-')] = version
        return found

    def is_complete(self):
        """Whether the last run finished and nothing was changed since."""
        if self.state.read('done').get('fingerprint') != self.fingerprint():
            return False
        there = self.installed()
        torch = {name: self.options[name] for name in ('torch', 'torchvision')}
        whole = all(
            there.get(name, '').split('+')[0] == version.split('+')[0]
            for name, version in {**torch, **self.pins}.items()
        )
        return whole and 'mmrkkd' in there and not self.intruders()

    def intruders(self):
        """Installed distributions of the family that is not wanted."""
        there = self.installed()
        others = [f for f in self.stack.FAMILIES.values() if f != self.family]
        return [d for f in others for d in f.values() if d in there]

    # -- the stages ---------------------------------------------------------

    def prepare_environment(self, wanted):
        """An environment with a pip that works; a sound one stays.

        Args:
            wanted: The interpreter asked for by PYTHON=, or None.
        """
        have = self.python.exists() and choices.probe_python(self.python)
        if have in PYTHONS:
            if wanted and choices.probe_python(wanted) != have:
                raise InstallError(
                    f'{self.venv} has Python {have[0]}.{have[1]}, but '
                    f'PYTHON={wanted} is asked for.\nRemove it (rm -r '
                    f'{self.venv}) or choose another folder with VENV=.'
                )
            if self.is_complete() or self.pip_runs():
                return
        if self.venv.exists() and not (self.venv / 'pyvenv.cfg').exists():
            # It will be emptied, so it had better be ours.
            raise InstallError(
                f'{self.venv} exists and is no Python environment.\n'
                'Choose another folder with VENV=.'
            )
        python = choices.choose_python(wanted)
        choices.check_venv_module(python)
        mmcv = self.family['mmcv']
        if not mmcv_wheel.is_likely_cached(
            mmcv, self.pins[mmcv], self.options['torch'], python
        ):
            # Hours later, after the downloads, would be a bad time to say so.
            mmcv_wheel.check_compiler(python)
        self.journal.say(f'creating {self.venv} with {python}')
        done = subprocess.run(
            [python, '-m', 'venv', '--clear', str(self.venv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise InstallError(f'{python} -m venv failed:\n{done.stdout}')

    def pip_runs(self):
        """False where the creation of the environment was interrupted."""
        command = [*self.pip, '--version']
        done = subprocess.run(command, capture_output=True, check=False)
        return done.returncode == 0

    def remove_other_family(self):
        """Both families share their files: all of both must go."""
        if not self.intruders():
            return
        there = self.installed()
        gone = [
            dist
            for family in self.stack.FAMILIES.values()
            for dist in family.values()
            if dist in there
        ]
        self.state.write('mmcv', {})
        self.journal.run(
            f'removing the other OpenMMLab packages ({", ".join(gone)})',
            [*self.pip, 'uninstall', '-y', *gone],
        )

    def install_torch(self):
        wanted = [f'{n}=={self.options[n]}' for n in ('torch', 'torchvision')]
        self.journal.run(
            f'installing {" and ".join(wanted)} (a large download)',
            [*self.pip, 'install', *wanted],
        )

    def install_family(self, key, wheel):
        """The OpenMMLab packages around that mmcv, and mmrkkd."""
        there = self.installed()
        # torch must stay as it is: mmcv was compiled against it.
        constraint = self.state.folder / 'constraints.txt'
        names = ('torch', 'torchvision')
        lines = [f'{name}=={there[name]}\n' for name in names]
        constraint.write_text(''.join(lines))
        install = [*self.pip, 'install', '-c', constraint]
        mmcv = self.family['mmcv']
        same = self.state.read('mmcv').get('key') == key
        if not same or mmcv not in there:
            # pip takes equal versions for equal files; another build of the
            # same mmcv must replace the one that is there.
            force = ['--no-deps', '--force-reinstall']
            self.journal.run(
                f'installing {wheel.name}',
                [*self.pip, 'install', *force, wheel],
            )
            self.state.write('mmcv', {'key': key})
        name = self.options['stack']
        self.journal.run(
            f'installing the {name} packages of OpenMMLab',
            [*install, '-r', REQUIREMENTS / f'{name}.txt'],
        )
        self.journal.run(
            'installing mmrkkd, editable, and what its tests need',
            [*install, '--no-build-isolation', '-e', f'{ROOT}[{EXTRAS}]'],
        )


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--venv', default='.venv', help='folder of the environment'
    )
    parser.add_argument('--python', help='interpreter, 3.10 to 3.12')
    parser.add_argument('--torch', help='version of torch, e.g. 2.13.0')
    parser.add_argument(
        '--torchvision', help='version; by default the one of that torch'
    )
    parser.add_argument('--stack', help='onedl or openmmlab')
    parser.add_argument(
        '--ops', help="mmcv's operators: cpu, cuda, or auto (as torch sees)"
    )
    return parser.parse_args(argv)


def install(args):
    """Bring the environment of ``args`` up to date."""
    stack = choices.load_stack()
    # Not resolved: the path a user types is the one to show.
    venv = Path(os.path.abspath(args.venv))
    given = {name: getattr(args, name) for name in choices.OPTIONS}
    remembered = State(venv).read('options')
    chosen, options = choices.resolve_options(given, remembered, stack)
    installer = Installer(venv, options, chosen, stack)
    with mmcv_wheel.locked(str(venv)):
        installer.prepare_environment(args.python)
        if not installer.is_complete():
            installer.run()


def main():
    args = parse_args()
    # A stopped CI job ends like an interrupted one: nothing runs on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if platform.system() != 'Linux':
            raise InstallError('Linux is needed.')
        if sys.version_info < PYTHONS[0]:
            # This file is written for the Pythons it installs.
            python = choices.choose_python(args.python)
            os.execvp(python, [python, *sys.argv])
        install(args)
    except InstallError as error:
        print(f'\nmake install: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nmake install: interrupted; it goes on from here.')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
