"""What is in an archive of the sources."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_an_sdist_carries_what_an_installation_needs_and_no_tests(tmp_path):
    # A copy: building in the checkout leaves files behind.
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md'):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / 'requirements', source / 'requirements')
    for name in (
        'mmrkkd/__init__.py',
        'mmrkkd/ops/backends/cpu/pairs.c',
        'mmrkkd/report/assets/page.html',
        'configs/kd.py',
        'tools/train.py',
        'tests/conftest.py',
        'tests/test_one.py',
        'tests/test_ops/test_two.py',
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    shutil.copy(ROOT / 'mmrkkd' / 'version.py', source / 'mmrkkd')
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'sdist', '--formats=tar'],
        cwd=source,
        check=True,
        capture_output=True,
    )
    with tarfile.open(next(source.glob('dist/*.tar'))) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {
        'setup.py',
        'requirements/runtime.txt',
        'mmrkkd/version.py',
        'mmrkkd/ops/backends/cpu/pairs.c',
        'mmrkkd/report/assets/page.html',
        'configs/kd.py',
        'tools/train.py',
    } <= names
    assert not [name for name in names if name.startswith('tests')]
