"""Building, caching and refusing the C code."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmrkkd.ops.backends.cpu import native_library as module

needs_compiler = pytest.mark.skipif(
    module.native_library() is None, reason='needs a C compiler'
)


@pytest.fixture
def load(monkeypatch, tmp_path):
    """A fresh loader with a cache folder of its own."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv(module.SWITCH, raising=False)
    return module.native_library.__wrapped__


@pytest.mark.slow
@needs_compiler
def test_it_is_built_once_and_found_again(load, tmp_path, monkeypatch):
    assert load() is not None
    folder = tmp_path / 'cache' / 'mmrkkd'
    (built,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700

    def refuse(*_, **__):
        raise AssertionError('compiled again')

    monkeypatch.setattr(module, 'build', refuse)
    assert load() is not None
    assert [built] == list(folder.iterdir())


@needs_compiler
def test_the_key_knows_sources_compiler_and_processor(monkeypatch, tmp_path):
    compiler = module.find_compiler()
    keys = {module.build_key(compiler)}
    keys.add(module.build_key([*compiler, '-DX']))
    monkeypatch.setattr(module, '_processor', lambda: 'flags: none')
    keys.add(module.build_key(compiler))
    (tmp_path / 'a.c').write_text('int a;')
    monkeypatch.setattr(module, 'SOURCES', tmp_path)
    keys.add(module.build_key(compiler))
    assert len(keys) == 4


def test_without_a_compiler_it_says_so_once(load, monkeypatch, caplog):
    monkeypatch.setenv('CC', '')
    monkeypatch.setenv('PATH', '')
    module.native_library.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert module.native_library() is None
            assert module.native_library() is None
    finally:
        module.native_library.cache_clear()
    (record,) = caplog.records
    assert 'no C compiler is found' in record.getMessage()
    assert 'apt-get install gcc' in record.getMessage()


@pytest.mark.skipif(os.name != 'posix', reason='a shell script')
def test_a_compiler_that_fails_is_quoted(load, monkeypatch, tmp_path, caplog):
    compiler = tmp_path / 'broken'
    compiler.write_text('#!/bin/sh\necho cannot do that >&2\nexit 3\n')
    compiler.chmod(0o755)
    monkeypatch.setenv('CC', str(compiler))
    assert load() is None
    assert 'cannot do that' in caplog.text
    assert list((tmp_path / 'cache' / 'mmrkkd').iterdir()) == []


def test_the_switch_asks_for_the_slower_code(load, monkeypatch, caplog):
    monkeypatch.setenv(module.SWITCH, '0')
    assert load() is None
    assert not caplog.records


@pytest.mark.slow
@needs_compiler
def test_a_cache_that_others_can_write_to_is_not_used(load, tmp_path):
    folder = tmp_path / 'cache' / 'mmrkkd'
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert module.cache_folder() is None
    # It is built for this process alone, and leaves nothing behind.
    assert load() is not None
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@needs_compiler
def test_a_library_that_others_can_write_to_is_not_loaded(
    load, tmp_path, caplog
):
    assert load() is not None
    (built,) = (tmp_path / 'cache' / 'mmrkkd').iterdir()
    built.chmod(0o777)
    assert load() is None
    assert 'others can write to' in caplog.text


@pytest.mark.slow
@needs_compiler
def test_processes_that_start_together_all_get_one(tmp_path):
    # By its path: importing all of the package takes seconds.
    script = (
        'import sys\n'
        f'sys.path.insert(0, {str(Path(module.__file__).parent)!r})\n'
        'from native_library import native_library\n'
        'assert native_library() is not None'
    )
    environment = {**os.environ, 'XDG_CACHE_HOME': str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, '-c', script], env=environment)
        for _ in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    (built,) = (tmp_path / 'mmrkkd').iterdir()
    assert built.suffix == '.so'


def test_the_sources_are_packaged():
    """A wheel without them would silently be the slow one."""
    root = Path(module.__file__).resolve().parents[4]
    if not (root / 'setup.py').exists():
        pytest.skip('not a checkout')
    setup = (root / 'setup.py').read_text()
    assert "'mmrkkd.ops.backends.cpu': ['*.[ch]']" in setup
    assert (
        'recursive-include mmrkkd/ops/backends/cpu *.c *.h'
        in (root / 'MANIFEST.in').read_text()
    )


@pytest.mark.skipif(os.name != 'posix', reason='users of a system')
def test_without_a_home_there_is_no_cache(monkeypatch):
    def nobody():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(module.Path, 'home', nobody)
    assert module.cache_folder() is None


@pytest.mark.skipif(os.name != 'posix', reason='groups of a system')
def test_a_cache_of_a_whole_group_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    folder = tmp_path / 'mmrkkd'
    assert module.cache_folder() == folder.resolve()
    folder.chmod(0o770)
    assert module.cache_folder() is None
