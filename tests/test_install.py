"""The installer's decisions, and what survives an interruption."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

import doctor  # noqa: E402
import install  # noqa: E402
from installer import choices, mmcv_wheel  # noqa: E402
from installer.choices import InstallError  # noqa: E402
from installer.journal import Journal, ninja_progress  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

STACK = choices.load_stack()
NOTHING = dict.fromkeys(choices.OPTIONS)
FACTS = {
    'mmcv': 'onedl-mmcv',
    'mmcv_version': '2.3.6',
    'torch': '2.11.0+cu130',
    'cuda': '13.0',
    'gpu': False,
    'ops': 'cpu',
    'arches': '',
    'python': 'cp311',
    'machine': 'x86_64',
    'libc': 'glibc2.36',
}


def make_wheel(path, library=b'ELF ... '):
    with zipfile.ZipFile(path, 'w') as wheel:
        wheel.writestr('mmcv/__init__.py', '#' * 1_000)
        if library:
            wheel.writestr(
                'mmcv/_ext.cpython-311-x86_64-linux-gnu.so', library
            )
    return path


# -- versions ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('torch', 'torchvision'),
    [
        ('2.1.2', '0.16.2'),
        ('2.11.0', '0.26.0'),
        ('2.13.0', '0.28.0'),
        ('2.11.0+cpu', '0.26.0'),
    ],
)
def test_torchvision_follows_torch(torch, torchvision):
    assert STACK.torchvision_for(torch) == torchvision


def test_the_pins_of_torch_and_torchvision_agree():
    pins = choices.read_pins('torch')
    assert STACK.torchvision_for(pins['torch']) == pins['torchvision']


def test_every_family_is_pinned_whole():
    for name, family in STACK.FAMILIES.items():
        assert set(choices.read_pins(name)) == set(family.values())


def test_options_default_to_the_pins():
    chosen, full = choices.resolve_options(NOTHING, {}, STACK)
    assert chosen == {}
    pins = choices.read_pins('torch')
    assert full == {'stack': 'onedl', 'ops': 'auto', **pins}


def test_another_torch_brings_its_torchvision():
    given = {**NOTHING, 'torch': '2.13.0'}
    chosen, full = choices.resolve_options(given, {}, STACK)
    assert chosen == {'torch': '2.13.0'}
    assert full['torchvision'] == '0.28.0'


def test_options_are_remembered_until_others_are_given():
    remembered = {'stack': 'openmmlab', 'torch': '2.10.0', 'junk': 'x'}
    chosen, full = choices.resolve_options(NOTHING, remembered, STACK)
    assert chosen == {'stack': 'openmmlab', 'torch': '2.10.0'}
    assert full['torchvision'] == '0.25.0'
    given = {**NOTHING, 'stack': 'onedl'}
    _, full = choices.resolve_options(given, remembered, STACK)
    assert full['stack'] == 'onedl'
    assert full['torch'] == '2.10.0'


def test_a_new_torch_forgets_the_torchvision_of_the_last():
    remembered = {'torch': '2.12.0', 'torchvision': '0.27.1'}
    given = {**NOTHING, 'torch': '2.11.0'}
    _, full = choices.resolve_options(given, remembered, STACK)
    assert full['torchvision'] == '0.26.0'


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('stack', 'mmlab', "STACK must be onedl or openmmlab, got 'mmlab'"),
        ('ops', 'gpu', "OPS must be auto, cpu or cuda, got 'gpu'"),
        ('torch', '2.13', "2.minor.patch, got '2.13'"),
    ],
)
def test_a_wrong_option_is_named(option, value, message):
    given = {**NOTHING, option: value}
    with pytest.raises(InstallError, match=message.replace('.', r'\.')):
        choices.resolve_options(given, {}, STACK)


# -- Python and the compiler ------------------------------------------------


def test_the_running_python_is_taken_if_it_fits():
    versions = {choices.THIS_PYTHON: (3, 11), 'python3.12': (3, 12)}
    assert choices.choose_python(None, versions.get) == choices.THIS_PYTHON


def test_a_newer_python3_gives_way_to_one_that_fits():
    versions = {choices.THIS_PYTHON: (3, 13), 'python3.10': (3, 10)}
    assert choices.choose_python(None, versions.get) == 'python3.10'


def test_no_python_that_fits_is_one_clear_error():
    versions = {choices.THIS_PYTHON: (3, 13)}
    with pytest.raises(InstallError, match=r'3\.10, 3\.11 or 3\.12.*is 3\.13'):
        choices.choose_python(None, versions.get)


def test_a_python_asked_for_is_not_silently_replaced():
    versions = {choices.THIS_PYTHON: (3, 11), 'python3.9': (3, 9)}
    with pytest.raises(InstallError, match=r'python3\.9 is 3\.9'):
        choices.choose_python('python3.9', versions.get)
    with pytest.raises(InstallError, match='pythonX does not run'):
        choices.choose_python('pythonX', versions.get)


def test_a_command_that_is_no_python_has_no_version():
    assert choices.probe_python(sys.executable) == sys.version_info[:2]
    assert choices.probe_python('false') is None
    assert choices.probe_python('/no/such/python') is None


def fake_python(folder, body):
    path = folder / 'python3.11'
    path.write_text(f'#!/bin/sh\n{body}\n')
    path.chmod(0o755)
    return str(path)


def test_missing_venv_module_names_the_package(tmp_path):
    # A python whose "import ensurepip, venv" fails, as Debian ships it.
    body = 'case "$2" in *ensurepip*) exit 1;; *) echo 3 11;; esac'
    with pytest.raises(InstallError, match=r'install python3\.11-venv'):
        choices.check_venv_module(fake_python(tmp_path, body))
    choices.check_venv_module(sys.executable)


def test_missing_compiler_is_told(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(
        InstallError, match=r'no C\+\+ compiler \(no-such-compiler\)'
    ):
        mmcv_wheel.check_compiler(sys.executable)


def test_missing_python_headers_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv('CXX', 'sh')
    body = 'case "$2" in *include*) echo /nowhere;; *) echo 3 11;; esac'
    with pytest.raises(InstallError, match=r'install python3\.11-dev'):
        mmcv_wheel.check_compiler(fake_python(tmp_path, body))


# -- the wheel cache --------------------------------------------------------


@pytest.mark.parametrize(
    ('fact', 'value'),
    [
        ('mmcv', 'mmcv'),
        ('mmcv_version', '2.3.7'),
        ('torch', '2.11.0+cpu'),
        ('cuda', '12.8'),
        ('cuda', None),
        ('ops', 'cuda'),
        ('python', 'cp312'),
        ('machine', 'aarch64'),
        ('libc', 'glibc2.39'),
    ],
)
def test_every_fact_changes_the_key(fact, value):
    key = mmcv_wheel.wheel_key(FACTS)
    assert mmcv_wheel.wheel_key({**FACTS, fact: value}) != key


def test_the_kind_of_gpu_counts_for_cuda_operators_only():
    cuda = {**FACTS, 'ops': 'cuda', 'arches': '8.0'}
    other = {**cuda, 'arches': '9.0;8.0+PTX'}
    assert mmcv_wheel.wheel_key(cuda) != mmcv_wheel.wheel_key(other)
    assert '/' not in mmcv_wheel.wheel_key({**cuda, 'arches': '8.0 / 9.0'})
    cpu = {**FACTS, 'arches': '8.0'}
    assert mmcv_wheel.wheel_key(cpu) == mmcv_wheel.wheel_key(FACTS)


def test_a_key_is_recognised_before_torch_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    tag = 'cp{}{}'.format(*sys.version_info[:2])
    key = mmcv_wheel.wheel_key({**FACTS, 'python': tag})
    args = ('onedl-mmcv', '2.3.6', '2.11.0', sys.executable)
    assert not mmcv_wheel.is_likely_cached(*args)
    wheel = make_wheel(tmp_path / 'mmcv.whl')
    folder = mmcv_wheel.cache_folder() / 'wheels' / key
    mmcv_wheel.store_wheel(wheel, folder)
    assert mmcv_wheel.is_likely_cached(*args)
    args = ('onedl-mmcv', '2.3.6', '2.12.0', sys.executable)
    assert not mmcv_wheel.is_likely_cached(*args)


def test_cpu_operators_without_a_gpu(monkeypatch):
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    assert mmcv_wheel.decide_ops(FACTS, 'auto')['ops'] == 'cpu'
    with_gpu = {**FACTS, 'gpu': True, 'arches': '9.0'}
    assert mmcv_wheel.decide_ops(with_gpu, 'cpu')['ops'] == 'cpu'


def test_cuda_operators_with_a_gpu_and_a_compiler(tmp_path, monkeypatch):
    nvcc = tmp_path / 'bin' / 'nvcc'
    nvcc.parent.mkdir()
    nvcc.write_text('')
    nvcc.chmod(0o755)
    monkeypatch.setenv('CUDA_HOME', str(tmp_path))
    monkeypatch.delenv('TORCH_CUDA_ARCH_LIST', raising=False)
    facts = {**FACTS, 'gpu': True, 'arches': '9.0'}
    facts = mmcv_wheel.decide_ops(facts, 'auto')
    assert (facts['ops'], facts['arches']) == ('cuda', '9.0')
    env = mmcv_wheel.build_environment(facts, {'CFLAGS': '-O1'})
    assert env['FORCE_CUDA'] == '1'
    assert env['TORCH_CUDA_ARCH_LIST'] == '9.0'
    assert env['CFLAGS'] == '-O1 -g0'
    nvcc.unlink()
    with pytest.raises(InstallError, match=r'(?s)toolkit 13\.0.*OPS=cpu'):
        mmcv_wheel.decide_ops(facts, 'auto')


def test_cuda_operators_that_cannot_be_built_are_refused(monkeypatch):
    monkeypatch.delenv('TORCH_CUDA_ARCH_LIST', raising=False)
    with pytest.raises(InstallError, match='build without CUDA'):
        mmcv_wheel.decide_ops({**FACTS, 'cuda': None}, 'cuda')
    with pytest.raises(InstallError, match='no GPU to ask'):
        mmcv_wheel.decide_ops(FACTS, 'cuda')


def test_the_operators_in_a_wheel_are_recognised(tmp_path):
    inspect = mmcv_wheel.inspect_wheel
    assert inspect(make_wheel(tmp_path / 'a.whl')) == 'cpu'
    cuda = make_wheel(tmp_path / 'b.whl', b'ELF __cudaLaunchKernel')
    assert inspect(cuda) == 'cuda'
    assert inspect(make_wheel(tmp_path / 'c.whl', None)) is None


def test_a_cut_off_wheel_is_not_used(tmp_path):
    wheel = make_wheel(tmp_path / 'mmcv.whl', os.urandom(10_000))
    assert mmcv_wheel.find_wheel(tmp_path, 'cpu') == wheel
    wheel.write_bytes(wheel.read_bytes()[:5_000])
    assert mmcv_wheel.find_wheel(tmp_path, 'cpu') is None


def test_a_wheel_with_one_wrong_byte_is_not_used(tmp_path):
    wheel = make_wheel(tmp_path / 'mmcv.whl')
    data = bytearray(wheel.read_bytes())
    # Within __init__.py, which is stored first and as it is.
    data[500] ^= 1
    wheel.write_bytes(data)
    assert mmcv_wheel.find_wheel(tmp_path, 'cpu') is None


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path / 'mmcv.whl')
    folder = tmp_path / 'cache'

    def copy_half(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:50])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mmcv_wheel.shutil, 'copyfile', copy_half)
        with pytest.raises(KeyboardInterrupt):
            mmcv_wheel.store_wheel(wheel, folder)
    assert list(folder.iterdir()) == []
    stored = mmcv_wheel.store_wheel(wheel, folder)
    assert list(folder.iterdir()) == [stored]
    assert stored.read_bytes() == wheel.read_bytes()


def test_unpacking_keeps_the_objects_of_an_interrupted_build(tmp_path):
    inner = tmp_path / 'mmcv-2.1.0'
    inner.mkdir()
    (inner / 'setup.py').write_text('')
    archive = tmp_path / 'mmcv.tar.gz'
    command = ['tar', 'czf', archive, '-C', tmp_path, 'mmcv-2.1.0']
    subprocess.run(command, check=True)
    source = tmp_path / 'build' / 'source'
    source.parent.mkdir()
    assert mmcv_wheel.unpack_source(archive, source) == source
    assert [path.name for path in source.iterdir()] == ['setup.py']
    (source / 'nms.o').write_text('')
    mmcv_wheel.unpack_source(archive, source)
    assert (source / 'nms.o').exists()
    assert list(source.parent.iterdir()) == [source]


def test_a_second_installation_waits_for_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    order = []

    def second():
        with mmcv_wheel.locked('same'):
            order.append('second')

    with mmcv_wheel.locked('same'), mmcv_wheel.locked('other'):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append('first')
    thread.join(10)
    assert order == ['first', 'second']


def test_a_user_without_a_home_directory_is_told(monkeypatch, capsys):
    def homeless():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', homeless)
    monkeypatch.setenv('XDG_CACHE_HOME', '/elsewhere')
    assert mmcv_wheel.cache_folder() == Path('/elsewhere/mmrkkd')
    monkeypatch.delenv('XDG_CACHE_HOME')
    with pytest.raises(InstallError, match='XDG_CACHE_HOME=/tmp/cache make'):
        mmcv_wheel.cache_folder()
    rows = dict(doctor.describe_installation(STACK))
    assert rows['mmcv wheel cache'] == 'unknown: no home directory'


def test_a_compiler_that_prints_nothing_is_told():
    assert doctor.first_line(['true']) == 'prints nothing'
    assert doctor.first_line(['echo', '', 'cc 12']) == 'cc 12'


@pytest.mark.parametrize('target', ['doctor', 'gpu-check'])
def test_an_environment_may_have_a_space_in_its_path(tmp_path, target):
    python = tmp_path / 'an environment' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho ours "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ['make', target, f'VENV={python.parents[1]}'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'ours tools/' in done.stdout


# -- what an environment remembers ------------------------------------------


@pytest.fixture
def installed(tmp_path):
    """An installer whose environment is complete, without any package."""
    _, options = choices.resolve_options(NOTHING, {}, STACK)
    installer = install.Installer(tmp_path / 'venv', options, {}, STACK)
    site = tmp_path / 'venv' / 'lib' / 'python3.11' / 'site-packages'
    versions = {**choices.read_pins('torch'), **choices.read_pins('onedl')}
    versions['mmrkkd'] = '0.2.0'
    for name, version in versions.items():
        name = name.replace('-', '_')
        (site / f'{name}-{version}.dist-info').mkdir(parents=True)
    finished = {'fingerprint': installer.fingerprint()}
    installer.state.write('done', finished)
    return installer


def test_a_complete_environment_is_left_alone(installed):
    assert installed.is_complete()


def test_an_interrupted_installation_is_not_complete(installed):
    installed.state.write('done', {})
    assert not installed.is_complete()


def test_a_changed_option_is_noticed(installed):
    installed.options['torch'] = '2.13.0'
    assert not installed.is_complete()


def test_a_changed_pin_is_noticed(installed, tmp_path, monkeypatch):
    requirements = tmp_path / 'requirements'
    requirements.mkdir()
    for path in choices.REQUIREMENTS.glob('*.txt'):
        (requirements / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(install, 'REQUIREMENTS', requirements)
    assert installed.is_complete()
    with open(requirements / 'dev.txt', 'a') as file:
        file.write('one-more\n')
    assert not installed.is_complete()


@pytest.mark.parametrize('name', ['torch', 'onedl_mmcv', 'mmrkkd'])
def test_a_package_removed_by_hand_is_noticed(installed, name):
    next(installed.venv.rglob(f'{name}-*.dist-info')).rmdir()
    assert not installed.is_complete()


def test_a_torch_changed_by_hand_is_noticed(installed):
    path = next(installed.venv.rglob('torch-*.dist-info'))
    path.rename(path.with_name('torch-2.12.1.dist-info'))
    assert not installed.is_complete()


def test_a_package_of_the_other_family_is_noticed(installed):
    site = next(installed.venv.rglob('site-packages'))
    (site / 'mmcv_lite-2.1.0.dist-info').mkdir()
    assert installed.is_complete()
    (site / 'mmcv-2.1.0.dist-info').mkdir()
    assert installed.intruders() == ['mmcv']
    assert not installed.is_complete()


def test_another_python_is_refused_with_what_to_do(installed, monkeypatch):
    installed.python.parent.mkdir()
    installed.python.symlink_to(sys.executable)
    have = sys.version_info[:2]
    other = 'python3.12' if have != (3, 12) else 'python3.11'
    versions = {other: (3, int(other[-2:]))}
    monkeypatch.setattr(
        choices, 'probe_python', lambda name: versions.get(name, have)
    )
    message = rf'rm -r {installed.venv}\) or choose another folder with VENV='
    with pytest.raises(InstallError, match=message):
        installed.prepare_environment(other)


def test_a_folder_that_is_no_environment_is_not_emptied(tmp_path):
    _, options = choices.resolve_options(NOTHING, {}, STACK)
    (tmp_path / 'thesis.tex').write_text('')
    installer = install.Installer(tmp_path, options, {}, STACK)
    with pytest.raises(InstallError, match='is no Python environment'):
        installer.prepare_environment(None)
    assert (tmp_path / 'thesis.tex').exists()


# -- stages -----------------------------------------------------------------


def test_a_failed_stage_shows_the_end_of_its_log(tmp_path, capsys):
    journal = Journal(tmp_path / 'logs')
    command = ['sh', '-c', 'seq 1 40; echo broken >&2; exit 3']
    with pytest.raises(InstallError) as caught:
        journal.run('compiling (a while)', command, hint='Buy memory.')
    text = str(caught.value)
    assert text.startswith('compiling (a while): failed (exit status 3)')
    assert '    40\n    broken\n' in text
    assert '    25\n' not in text
    assert text.endswith('Buy memory.')
    log = tmp_path / 'logs' / '01-compiling.log'
    assert str(log) in text
    assert log.read_text().startswith('1\n2\n')
    assert '] compiling (a while)\n' in capsys.readouterr().out


def test_the_progress_of_ninja_is_read():
    assert ninja_progress('  [12/78] c++ -MMD -MF nms.o.d') == '12/78'
    assert ninja_progress('  copying mmcv/ops/nms.py') is None


def test_an_interrupted_stage_takes_its_children_along(tmp_path):
    pid_file = tmp_path / 'pid'
    code = (
        f'import sys; sys.path.insert(0, {str(ROOT / "tools")!r})\n'
        # Tests that run in the background inherit that Ctrl-C is ignored.
        'import signal\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'from pathlib import Path\n'
        'from installer.journal import Journal\n'
        f'Journal(Path({str(tmp_path)!r})).run("compiling", ["sh", "-c",'
        f' "sleep 60 & echo $! > {pid_file}; wait"])\n'
    )
    process = subprocess.Popen([sys.executable, '-c', code])
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip())
    process.send_signal(signal.SIGINT)
    process.wait(60)
    child = int(pid_file.read_text())
    wait_for(lambda: not is_running(child))


def test_ctrl_c_while_a_stage_starts_ends_it_too(tmp_path, monkeypatch):
    started = []

    class InterruptedAtOnce(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, 'Popen', InterruptedAtOnce)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Journal(tmp_path).run('compiling', ['sleep', '60'])
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: not is_running(started[0]))


def wait_for(condition):
    for _ in range(1200):
        if condition():
            return
        threading.Event().wait(0.05)
    pytest.fail('nothing happened within a minute')


def is_running(pid):
    try:
        status = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False
    # A zombie has ended; nobody has asked for its exit status yet.
    return status.rpartition(')')[2].split()[0] != 'Z'


# -- packaging --------------------------------------------------------------


@pytest.mark.slow
def test_a_wheel_carries_configs_and_tools_and_requires_no_torch(tmp_path):
    # A copy: building in the checkout leaves a build folder behind. Other
    # tests write compiled files while it is made.
    source = tmp_path / 'source'
    source.mkdir()
    for name in ['setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE']:
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns('__pycache__')
    for name in ['requirements', 'mmrkkd', 'configs', 'tools']:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
        compiled = source / name / '__pycache__' / 'module.cpython-311.pyc'
        compiled.parent.mkdir()
        compiled.write_bytes(b'compiled')
    (source / 'model-index.yml').write_text('Import: []\n')
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps']
    command += ['--no-build-isolation', '--wheel-dir', tmp_path, source]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel:
        names = wheel.namelist()
        info = next(name for name in names if name.endswith('/METADATA'))
        metadata = wheel.read(info).decode()
    assert 'mmrkkd/.mim/model-index.yml' in names
    assert 'mmrkkd/.mim/tools/doctor.py' in names
    assert any(name.startswith('mmrkkd/.mim/configs/') for name in names)
    assert not any('__pycache__' in name for name in names)
    package = [p for p in (source / 'mmrkkd').rglob('*') if p.is_file()]
    files = {str(p.relative_to(source)) for p in package if p.suffix != '.pyc'}
    assert files <= set(names)
    required = [
        line.split()[1]
        for line in metadata.splitlines()
        if line.startswith('Requires-Dist') and 'extra ==' not in line
    ]
    assert required == ['matplotlib', 'numpy', 'scipy>=1.11', 'tqdm']
    assert 'onedl-mmcv==' in metadata
    assert "extra == 'openmmlab'" in metadata.replace('"', "'")
