#!/usr/bin/env python3
"""Says what is installed, whether it works together, and what to mend.

    python tools/doctor.py

Runs with any Python 3.10 or newer, also where nothing is installed. The exit
code is 0 if mmrkkd can work here and 1 if not.
"""

import argparse
import contextlib
import importlib
import io
import os
import platform
import shutil
import subprocess
import sys
import warnings

from installer.choices import InstallError, load_stack
from installer.mmcv_wheel import cache_folder


def first_line(command):
    """First line a program prints, or why there is none."""
    if shutil.which(command[0]) is None:
        return 'not found'
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    lines = lines or ['prints nothing']
    return lines[-1].strip() if 'nvcc' in command[0] else lines[0].strip()


def describe_torch():
    """Rows on CUDA and the GPUs, as torch sees them."""
    try:
        torch = importlib.import_module('torch')
    except Exception as error:
        return [('torch imports', f'no: {error}')]
    rows = [('CUDA of torch', torch.version.cuda or 'none (CPU build)')]
    if not torch.cuda.is_available():
        return [*rows, ('GPU', 'none that torch can use')]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        memory = f'{gpu.total_memory / 2**30:.0f} GiB'
        capability = f'compute capability {gpu.major}.{gpu.minor}'
        rows.append((f'GPU {index}', f'{gpu.name}, {memory}, {capability}'))
    return rows


def describe_installation(stack):
    """Rows of the table, as (what, found)."""
    rows = [
        ('Python', f'{platform.python_version()} ({sys.executable})'),
        ('platform', platform.platform()),
        ('mmrkkd', stack.find_version('mmrkkd') or 'not installed'),
    ]
    names = ['torch', 'torchvision']
    for name in stack.FAMILIES['openmmlab']:
        dists = [family[name] for family in stack.FAMILIES.values()]
        found = [f'{d} {v}' for d in dists if (v := stack.find_version(d))]
        rows.append((name, ' and '.join(found) or 'not installed'))
    names += ['numpy', 'opencv-python', 'setuptools']
    for name in names:
        rows.append((name, stack.find_version(name) or 'not installed'))
    extension = stack.find_extension('mmcv', '_ext')
    rows.append(('mmcv._ext', str(extension or 'not there')))
    rows += describe_torch()
    rows.append(
        (
            'C++ compiler',
            first_line([os.environ.get('CXX', 'c++'), '--version']),
        )
    )
    rows.append(('CUDA compiler', first_line(['nvcc', '--version'])))
    return rows + describe_cache()


def describe_cache():
    """Rows on the cache of mmcv wheels."""
    try:
        cache = cache_folder() / 'wheels'
    except InstallError:
        return [('mmcv wheel cache', 'unknown: no home directory')]
    wheels = sorted(cache.glob('*/*.whl'))
    rows = [('mmcv wheel cache', f'{cache}, {len(wheels)} wheels')]
    return rows + [('', wheel.parent.name) for wheel in wheels]


# Each probe is one thing that mmrkkd does later, done now on the smallest
# input there is. It returns or raises what is wrong.


def probe_torchvision():
    torch = importlib.import_module('torch')
    ops = importlib.import_module('torchvision').ops
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
    kept = ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    return None if kept.tolist() == [0] else f'nms kept {kept.tolist()}'


def probe_mmcv(device='cpu'):
    torch = importlib.import_module('torch')
    nms = importlib.import_module('mmcv.ops').nms
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
    scores = torch.tensor([0.9, 0.8])
    _, kept = nms(boxes.to(device), scores.to(device), 0.5)
    return None if kept.tolist() == [0] else f'nms kept {kept.tolist()}'


def probe_mmdet():
    importlib.import_module('mmdet.apis')


def probe_mmpretrain():
    importlib.import_module('mmpretrain.apis')


def probe_mmrkkd():
    torch = importlib.import_module('torch')
    kendall_tau = importlib.import_module('mmrkkd.ops').kendall_tau
    student = torch.tensor([[1.0, 2.0, 3.0]])
    # At this steepness every tanh is +-1, so a reversed order gives -1.
    tau = kendall_tau(student, student.flip(-1), steepness=1e3).item()
    return None if abs(tau + 1) < 1e-6 else f'kendall_tau gave {tau}, not -1'


def run_probe(problem_class, name, probe, command):
    """A list with the problem the probe shows, empty if there is none."""
    try:
        # The packages warn and print on import; the answer is what counts.
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter('ignore')
            wrong = probe()
    except Exception as error:
        text = str(error).strip().splitlines() or ['']
        wrong = f'{type(error).__name__}: {text[0]}'
    return [problem_class(name, wrong, command)] if wrong else []


def run_probes(stack):
    """Really imports and uses everything; returns the problems."""
    pip = f'{stack.PIP} install'
    family = stack.FAMILIES[stack.detect_family()]
    again = f'{pip} --force-reinstall --no-deps '
    pins = stack.read_pins()
    rebuild = stack.build_mmcv_command(family['mmcv'], again=True)
    probes = []
    if stack.package_folder('torchvision'):
        probes.append(
            ('torchvision', probe_torchvision, again + 'torchvision')
        )
    probes.append(('mmcv', probe_mmcv, rebuild))
    if importlib.import_module('torch').cuda.is_available():
        probes.append(
            (
                'mmcv on the GPU',
                lambda: probe_mmcv('cuda'),
                'make install OPS=cuda (needs nvcc), or: FORCE_CUDA=1 '
                + rebuild,
            )
        )
    for name, probe in (
        ('mmdet', probe_mmdet),
        ('mmpretrain', probe_mmpretrain),
    ):
        if stack.package_folder(name):
            dist = family[name]
            probes.append((name, probe, f'{pip} {pins.get(dist, dist)}'))
    if stack.package_folder('mmrkkd'):
        probes.append(('mmrkkd', probe_mmrkkd, f'{pip} -e . (in a checkout)'))
    problems = []
    for name, probe, command in probes:
        problems += run_probe(stack.Problem, name, probe, command)
    return problems


def find_notes(stack):
    """Known limits of what is installed that stop nothing by themselves."""
    notes = []
    if stack.package_folder('mmrkkd') is None:
        notes.append(
            'mmrkkd itself is not installed: pip install -e . in a checkout.'
        )
    mmengine = stack.find_version('mmengine')
    torch = stack.find_version('torch')
    if (
        mmengine
        and torch
        and stack.version_key(mmengine) <= (0, 10, 7, 0)
        and stack.version_key(torch) >= (2, 6, 0, 0)
    ):
        notes.append(
            f'mmengine {mmengine} reads checkpoints in a way torch {torch} '
            'refuses: --resume and local checkpoint files fail in its own '
            'tools. The onedl family has mended this.'
        )
    return notes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.parse_args()
    stack = load_stack()
    for what, found in describe_installation(stack):
        print(f'{what:18} {found}')
    problems = stack.find_problems()
    if not problems:
        problems = run_probes(stack)
    print()
    for note in find_notes(stack):
        print(f'note: {note}')
    if problems:
        print(stack.describe(problems))
        return 1
    print('OK: mmrkkd can work here.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
