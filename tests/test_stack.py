"""Every way in which the packages around mmrkkd can be wrong.

Each test lays out a folder of stub packages, starts a Python that sees that
folder and nothing else, and reads what ``check_stack`` says there.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STACK = ROOT / 'mmrkkd' / '_stack.py'

FIND_PROBLEMS = f"""
import dataclasses, importlib.util, json, sys
spec = importlib.util.spec_from_file_location('stack', {str(STACK)!r})
stack = importlib.util.module_from_spec(spec)
sys.modules['stack'] = stack
spec.loader.exec_module(stack)
problems = stack.find_problems()
try:
    stack.check_stack()
    message = None
except stack.StackError as error:
    message = str(error)
print(json.dumps([[dataclasses.astuple(p) for p in problems], message]))
"""

# What mmdet 3.3.0 does on import, in short.
REFUSES = """
import mmcv
mmcv_minimum_version = '2.0.0rc4'
mmcv_maximum_version = '2.2.0'
assert mmcv.__version__ < mmcv_maximum_version, \\
    f'MMCV=={mmcv.__version__} is used but incompatible.'
"""


class FakeSite:
    """A folder of stub packages, beginning with a stack that works."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.add('torch', '2.11.0')
        self.add('torchvision', '0.26.0', requires='torch (==2.11.0)')
        self.add('mmengine', '0.10.12', dist='onedl-mmengine')
        self.add('mmcv', '2.3.6', dist='onedl-mmcv')
        self.add('mmdet', '3.5.1', dist='onedl-mmdetection')
        self.add('mmpretrain', '1.3.6', dist='onedl-mmpretrain')
        # Any extension that loads will do: its symbols are what is checked.
        library = importlib.util.find_spec('_ctypes').origin
        shutil.copy(library, folder / 'mmcv' / '_ext.so')
        shutil.copy(library, folder / 'torchvision' / '_C.so')

    def add(self, name, version, dist=None, code='', requires=None):
        """Write a package and its metadata, over any that is there."""
        package = self.folder / name
        package.mkdir(exist_ok=True)
        line = f'__version__ = {version!r}\n'
        if name == 'torch':
            cuda = 'None' if version.endswith('+cpu') else "'13.0'"
            code += f'\nclass version:\n    cuda = {cuda}\n'
        (package / 'version.py').write_text(line)
        (package / '__init__.py').write_text(line + code)
        self.add_metadata(dist or name, version, requires)

    def add_metadata(self, dist, version, requires=None):
        info = self.folder / f'{dist.replace("-", "_")}-{version}.dist-info'
        info.mkdir(exist_ok=True)
        text = f'Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n'
        if requires:
            text += f'Requires-Dist: {requires}\n'
        (info / 'METADATA').write_text(text)

    def remove(self, *names):
        """Remove packages and their metadata, by either name."""
        for name in names:
            stem = name.replace('-', '_')
            paths = [self.folder / stem, *self.folder.glob(f'{stem}-*')]
            for path in paths:
                shutil.rmtree(path, ignore_errors=True)

    def remove_openmmlab(self):
        self.remove('mmengine', 'mmcv', 'mmdet', 'mmpretrain')
        self.remove('onedl-mmengine', 'onedl-mmcv')
        self.remove('onedl-mmdetection', 'onedl-mmpretrain')

    def run(self, code, **environ):
        # -I -S: no site-packages, no variables, no current folder.
        return subprocess.run(
            [sys.executable, '-I', '-S', '-c']
            + [
                f'import sys; sys.path.insert(0, {str(self.folder)!r})\n{code}'
            ],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def problems(self, **environ):
        """(name, found, command) of each problem, and the whole message."""
        done = self.run(FIND_PROBLEMS, **environ)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def only_problem(self, **environ):
        problems, message = self.problems(**environ)
        assert len(problems) == 1, message
        for text in problems[0]:
            assert text in message
        return problems[0]


@pytest.fixture
def site(tmp_path):
    return FakeSite(tmp_path / 'site')


def test_a_whole_stack_has_no_problem(site):
    assert site.problems() == [[], None]


def test_an_empty_environment_is_told_everything_in_one_message(site):
    site.remove('torch')
    site.remove_openmmlab()
    problems, message = site.problems()
    names = [name for name, _, _ in problems]
    assert names == ['torch', 'mmengine', 'mmcv', 'mmdet, mmpretrain']
    assert f'mmrkkd cannot work in {sys.base_prefix}: 4 problems.' in message
    assert 'need torch and nothing else' in message.replace('\n', ' ')
    assert 'make install' in message


def test_missing_torch_comes_with_the_pinned_versions(site):
    site.remove('torch')
    name, found, command = site.only_problem()
    assert (name, found) == ('torch', 'not installed')
    pins = (ROOT / 'requirements' / 'torch.txt').read_text().splitlines()
    pins = [line for line in pins if line and line[0] != '#']
    assert command == 'python -m pip install ' + ' '.join(pins)


def test_torch_older_than_2_1_is_refused(site):
    site.remove('torch')
    site.add('torch', '2.0.1')
    name, found, _ = site.only_problem()
    assert name == 'torch'
    assert found == '2.0.1 is too old, 2.1 or newer is needed'


def test_torch_that_does_not_import_is_named_with_its_error(site):
    site.add('torch', '2.11.0', code="raise OSError('libcudart.so.13: gone')")
    name, found, command = site.only_problem()
    assert name == 'torch'
    assert found.endswith('importing it fails: libcudart.so.13: gone')
    assert '--force-reinstall' in command


def test_missing_mmengine(site):
    site.remove('mmengine', 'onedl-mmengine')
    name, found, command = site.only_problem()
    assert (name, found) == ('mmengine', 'not installed')
    assert command.startswith('python -m pip install onedl-mmengine==')


def test_a_begun_family_is_completed_with_its_own_members(site):
    site.remove_openmmlab()
    site.add('mmdet', '3.3.0')
    problems, message = site.problems()
    assert [name for name, _, _ in problems] == ['mmengine', 'mmcv']
    assert 'onedl' not in message


def test_the_mmcv_that_is_there_decides_the_family(site):
    library = (site.folder / 'mmcv' / '_ext.so').read_bytes()
    site.remove('mmcv', 'onedl-mmcv', 'mmengine', 'onedl-mmengine')
    site.add('mmcv', '2.1.0')
    (site.folder / 'mmcv' / '_ext.so').write_bytes(library)
    name, _, command = site.only_problem()
    assert name == 'mmengine'
    assert command.startswith('python -m pip install mmengine==')


def test_missing_mmcv_is_built_without_isolation(site):
    site.remove('mmcv', 'onedl-mmcv')
    name, found, command = site.only_problem()
    assert (name, found) == ('mmcv', 'not installed')
    assert '--no-build-isolation --no-cache-dir' in command
    assert '--no-binary onedl-mmcv onedl-mmcv==' in command


def test_what_a_failed_uninstall_leaves_is_not_mmcv(site):
    site.remove('onedl-mmcv')
    (site.folder / 'mmcv' / '__init__.py').unlink()
    name, found, _ = site.only_problem()
    assert (name, found) == ('mmcv', 'not installed')


def test_mmcv_without_its_operators(site):
    (site.folder / 'mmcv' / '_ext.so').unlink()
    name, found, command = site.only_problem()
    assert name == 'mmcv'
    assert found.startswith('2.3.6 has no mmcv._ext')
    assert '--no-deps --force-reinstall onedl-mmcv==' in command


def test_mmcv_lite_is_uninstalled_first(site):
    (site.folder / 'mmcv' / '_ext.so').unlink()
    site.remove('onedl-mmcv')
    site.add_metadata('mmcv-lite', '2.3.6')
    _, _, command = site.only_problem()
    assert command.startswith('python -m pip uninstall -y mmcv-lite && ')


def test_operators_built_for_another_torch(site, tmp_path):
    compiler = shutil.which('cc')
    if compiler is None:
        pytest.skip('needs a C compiler')
    source = tmp_path / 'ext.c'
    source.write_text('void gone(void); void init(void) { gone(); }')
    target = site.folder / 'mmcv' / '_ext.so'
    command = [compiler, '-shared', '-fPIC', source, '-o', target]
    subprocess.run(command, check=True)
    name, found, command = site.only_problem()
    assert name == 'mmcv'
    assert 'mmcv._ext of 2.3.6 does not load with torch 2.11.0' in found
    assert 'undefined symbol: gone' in found
    assert '--force-reinstall' in command


def test_operators_cut_off_by_a_full_disk(site):
    path = site.folder / 'mmcv' / '_ext.so'
    path.write_bytes(path.read_bytes()[:100])
    _, found, _ = site.only_problem()
    assert 'does not load with torch 2.11.0' in found


def test_two_families_over_each_other(site):
    site.add_metadata('mmcv', '2.1.0')
    site.add_metadata('mmengine', '0.10.7')
    name, found, command = site.only_problem()
    assert name == 'OpenMMLab'
    assert 'onedl-mmengine over mmengine' in found
    assert 'onedl-mmcv over mmcv' in found
    assert 'mmdet' not in found
    gone = command.split(' && ')[0].split(' -y ')[1].split()
    assert sorted(gone) == [
        'mmcv',
        'mmengine',
        'onedl-mmcv',
        'onedl-mmdetection',
        'onedl-mmengine',
        'onedl-mmpretrain',
    ]
    for dist in ('mmengine', 'mmcv', 'mmdetection', 'mmpretrain'):
        assert f' onedl-{dist}==' in command


def test_mixed_families_hide_what_follows_from_them(site):
    site.add_metadata('mmcv', '2.1.0')
    (site.folder / 'mmcv' / '_ext.so').unlink()
    assert site.only_problem()[0] == 'OpenMMLab'


def test_neither_mmdet_nor_mmpretrain(site):
    site.remove('mmdet', 'onedl-mmdetection')
    site.remove('mmpretrain', 'onedl-mmpretrain')
    name, found, command = site.only_problem()
    assert name == 'mmdet, mmpretrain'
    assert found == 'neither is installed, and one of them is needed'
    assert 'onedl-mmdetection==' in command
    assert 'onedl-mmpretrain==' in command


@pytest.mark.parametrize('missing', ['mmdet', 'mmpretrain'])
def test_one_of_mmdet_and_mmpretrain_is_enough(site, missing):
    site.remove(missing)
    assert site.problems() == [[], None]


def test_official_mmdet_that_refuses_the_mmcv_of_the_forks(site):
    site.remove('mmdet', 'onedl-mmdetection')
    site.add('mmdet', '3.3.0', code=REFUSES)
    name, found, command = site.only_problem()
    assert name == 'mmdet'
    assert found == '3.3.0: MMCV==2.3.6 is used but incompatible.'
    gone, come = command.split(' && ')
    assert gone == 'python -m pip uninstall -y mmdet'
    assert ' onedl-mmdetection==' in come


def test_official_mmdet_that_refuses_the_newest_official_mmcv(site):
    library = (site.folder / 'mmcv' / '_ext.so').read_bytes()
    site.remove_openmmlab()
    site.add('mmengine', '0.10.7')
    site.add('mmcv', '2.2.0')
    site.add('mmdet', '3.3.0', code=REFUSES)
    (site.folder / 'mmcv' / '_ext.so').write_bytes(library)
    name, found, command = site.only_problem()
    assert name == 'mmdet'
    assert found == '3.3.0: MMCV==2.2.0 is used but incompatible.'
    assert '--force-reinstall mmcv==' in command
    assert 'onedl' not in command


def test_mmdet_whose_assertion_was_edited_out_is_let_through(site):
    site.remove('mmdet', 'onedl-mmdetection')
    site.add('mmdet', '3.3.0', code=REFUSES.split('assert')[0])
    assert site.problems() == [[], None]


@pytest.mark.parametrize('beside', ['pycocotools', 'mmpretrain'])
def test_transformers_that_dropped_what_mmpretrain_imports(site, beside):
    site.add_metadata('pycocotools', '2.0.8')
    site.add('transformers', '5.17.0')
    assert site.problems() == [[], None]
    module = site.folder / 'transformers' / 'pytorch_utils.py'
    module.write_text('def prune_linear_layer(): ...\n')
    name, found, command = site.only_problem()
    assert name == 'transformers'
    assert found.startswith('5.17.0: mmpretrain cannot be imported')
    assert command == "python -m pip install 'transformers<5'"
    # Without either, MMPretrain leaves its multimodal models alone.
    site.remove(beside, *['onedl-mmpretrain'] * (beside == 'mmpretrain'))
    assert site.problems() == [[], None]


def test_transformers_4_is_let_through(site):
    site.add_metadata('pycocotools', '2.0.8')
    site.add('transformers', '4.57.0')
    module = site.folder / 'transformers' / 'pytorch_utils.py'
    module.write_text('def find_pruneable_heads_and_indices(): ...\n')
    assert site.problems() == [[], None]


def test_mmengine_that_needs_pkg_resources(site):
    utils = site.folder / 'mmengine' / 'utils'
    utils.mkdir()
    (utils / 'package_utils.py').write_text('    import pkg_resources\n')
    site.add_metadata('setuptools', '82.0.0')
    name, found, command = site.only_problem()
    assert name == 'mmengine'
    assert 'needs pkg_resources' in found
    assert 'setuptools 82.0.0 does not have' in found
    assert command == "python -m pip install 'setuptools<82'"
    site.add('pkg_resources', '81.0.0')
    assert site.problems() == [[], None]


def test_torchvision_missing_where_mmpretrain_needs_it(site):
    site.remove('torchvision')
    name, found, command = site.only_problem()
    assert name == 'torchvision'
    assert found == 'not installed, and mmpretrain needs it'
    assert command.endswith('torchvision==0.26.0')
    site.remove('mmpretrain')
    assert site.problems() == [[], None]


NO_NMS = "raise RuntimeError('operator torchvision::nms does not exist')"


def test_torchvision_whose_library_does_not_load(site):
    site.add('torchvision', '0.26.0', code=NO_NMS)
    (site.folder / 'torchvision' / '_C.so').write_bytes(b'no library')
    name, found, command = site.only_problem()
    assert name == 'torchvision'
    assert found == (
        '0.26.0 does not match torch 2.11.0: '
        'operator torchvision::nms does not exist'
    )
    assert command.endswith('--no-deps torchvision==0.26.0')


def test_cpu_build_of_torch_with_the_published_torchvision(site):
    site.remove('torch')
    site.add('torch', '2.11.0+cpu')
    site.add('torchvision', '0.26.0', code=NO_NMS)
    (site.folder / 'torchvision' / '_C.so').write_bytes(b'no library')
    _, found, command = site.only_problem()
    assert 'does not match torch 2.11.0+cpu' in found
    assert command == (
        'python -m pip install --force-reinstall torch==2.11.0 '
        'torchvision==0.26.0'
    )


def test_torchvision_made_for_another_torch(site):
    site.remove('torchvision')
    requires = 'torch (==2.13.0)'
    site.add('torchvision', '0.28.0', code=NO_NMS, requires=requires)
    library = site.folder / 'mmcv' / '_ext.so'
    shutil.copy(library, site.folder / 'torchvision' / '_C.so')
    name, found, _ = site.only_problem()
    assert name == 'torchvision'
    assert '0.28.0 does not match torch 2.11.0' in found


def test_torchvision_with_odd_metadata_that_works_is_let_through(site):
    site.add_metadata('torchvision', '0.26.0', requires='torch (==2.12.0a0)')
    assert site.problems() == [[], None]


def test_import_of_the_registry_gives_the_message(site):
    site.remove('mmcv', 'onedl-mmcv')
    code = f"""
sys.path.append({str(ROOT)!r})
import mmrkkd
try:
    import mmrkkd.registry
except RuntimeError as error:
    print(type(error).__name__, error)
"""
    done = site.run(code)
    assert done.stdout.startswith('StackError mmrkkd cannot work in ')
    assert 'mmcv: not installed' in done.stdout


def test_doctor_reports_where_nothing_is_installed(site):
    site.remove('torch')
    site.remove_openmmlab()
    code = f"""
sys.path.insert(0, {str(ROOT / 'tools')!r})
import doctor
sys.argv = ['doctor.py']
sys.exit(doctor.main())
"""
    done = site.run(code)
    assert done.returncode == 1, done.stderr
    assert 'mmengine           not installed' in done.stdout
    assert 'mmrkkd cannot work in' in done.stdout


@pytest.mark.slow
def test_doctor_finds_this_environment_sound():
    command = [sys.executable, str(ROOT / 'tools' / 'doctor.py')]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == 'OK: mmrkkd can work here.'


def test_version_order():
    from mmrkkd._stack import version_key

    ordered = ['2.0.0rc4', '2.0.0', '2.1', '2.1.0.post1', '2.2.0', '2.10.0']
    keys = [version_key(version) for version in ordered]
    assert keys == sorted(keys)
    assert version_key('2.11.0+cu130') == version_key('2.11.0')
    assert version_key('2.0.0rc4') < version_key('2.0.0')
