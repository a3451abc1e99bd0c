"""Checkpoints are written whole or not at all."""

import contextlib
import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import types

import pytest
from toy_runs import (
    ROOT,
    classifier,
    logged,
    make_images,
    run_config,
    same,
    train,
    write_config,
)

from mmrkkd.checkpoint import atomic, read_training_state
from mmrkkd.checkpoint.atomic import write_atomically

pytestmark = pytest.mark.usefixtures('process_as_before')

# Half of the second checkpoint is written, and the rest never comes.
SLOW_WRITER = """
import contextlib, pathlib, runpy, sys, time, types
from mmrkkd.checkpoint import atomic

@contextlib.contextmanager
def slow_open(path, mode):
    with open(path, mode) as file:
        def half(content):
            file.write(content[: len(content) // 2])
            file.flush()
            pathlib.Path(sys.argv[-1], 'half').touch()
            time.sleep(600)
        is_slow = 'epoch_2' in str(path)
        yield types.SimpleNamespace(write=half) if is_slow else file

atomic.open = slow_open
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('images'))


def full_disk(monkeypatch, name):
    """Writing files of this name ends with ENOSPC after some bytes."""

    @contextlib.contextmanager
    def opened(path, mode):
        with open(path, mode) as file:

            def fails(content):
                file.write(content[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            is_full = name in str(path)
            yield types.SimpleNamespace(write=fails) if is_full else file

    monkeypatch.setattr(atomic, 'open', opened, raising=False)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_write_costs_one_checkpoint_only(
    images, tmp_path, monkeypatch
):
    work_dir = tmp_path / 'killed'
    config = run_config(images, classifier(), length=3)
    path = write_config(work_dir / 'configs', config)
    errors = tmp_path / 'errors'
    command = [sys.executable, '-c', SLOW_WRITER, 'tools/train.py', path]
    with (
        errors.open('wb') as stderr,
        subprocess.Popen(
            [*command, '--work-dir', work_dir],
            cwd=ROOT,
            stdout=stderr,
            stderr=stderr,
        ) as process,
    ):
        while not (work_dir / 'half').exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, errors.read_text()
    (partial,) = work_dir.glob('epoch_2.pth.*.partial')
    assert partial.stat().st_size > 1000
    assert not (work_dir / 'epoch_2.pth').exists()
    first = work_dir / 'epoch_1.pth'
    assert (work_dir / 'last_checkpoint').read_text() == str(first)
    train(monkeypatch, work_dir, config, '--resume')
    assert not list(work_dir.glob('*.partial'))
    whole = tmp_path / 'whole'
    train(monkeypatch, whole, run_config(images, classifier(), length=3))
    state, expected = (
        read_training_state(folder / 'epoch_3.pth')
        for folder in (work_dir, whole)
    )
    for part in ('state_dict', 'optimizer', 'random_state'):
        same(state[part], expected[part], part)
    assert logged(work_dir) == logged(whole)


def test_a_full_disk_leaves_the_checkpoint_before(
    images, tmp_path, monkeypatch
):
    config = run_config(
        images,
        classifier(),
        length=2,
        **{'default_hooks.checkpoint.max_keep_ckpts': 1},
    )
    full_disk(monkeypatch, 'epoch_2')
    with pytest.raises(
        OSError,
        match=r'(?s)epoch_2.pth could not be written \(No space left.*'
        'untouched.*--resume',
    ) as caught:
        train(monkeypatch, tmp_path, config)
    assert caught.value.errno == errno.ENOSPC
    # The old one would be gone if it were removed first.
    assert [path.name for path in tmp_path.glob('*epoch*')] == ['epoch_1.pth']
    assert read_training_state(tmp_path / 'epoch_1.pth')['meta']['epoch'] == 1
    monkeypatch.undo()
    train(monkeypatch, tmp_path, config, '--resume')
    assert [path.name for path in tmp_path.glob('*epoch*')] == ['epoch_2.pth']
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'epoch_2.pth')


def test_a_better_checkpoint_takes_the_place_of_the_best(
    images, tmp_path, monkeypatch
):
    # Its loss on the training images falls with every epoch.
    config = run_config(images, classifier(), length=2)
    config.default_hooks.checkpoint.update(
        save_best='accuracy/top1', rule='less', max_keep_ckpts=1
    )
    scores = iter([2.0, 1.0])
    monkeypatch.setattr(
        'mmpretrain.evaluation.Accuracy.compute_metrics',
        lambda self, results: {'top1': next(scores)},
    )
    full_disk(monkeypatch, 'best_accuracy_top1_epoch_2')
    with pytest.raises(OSError, match='best_accuracy_top1_epoch_2'):
        train(monkeypatch, tmp_path, config)
    names = {path.name for path in tmp_path.glob('*.pth')}
    assert names == {'best_accuracy_top1_epoch_1.pth', 'epoch_2.pth'}
    monkeypatch.undo()
    scores = iter([1.0])
    monkeypatch.setattr(
        'mmpretrain.evaluation.Accuracy.compute_metrics',
        lambda self, results: {'top1': next(scores)},
    )
    config.train_cfg.max_epochs = 3
    train(monkeypatch, tmp_path, config, '--resume')
    names = {path.name for path in tmp_path.glob('*.pth')}
    assert names == {'best_accuracy_top1_epoch_3.pth', 'epoch_3.pth'}


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'file'
    write_atomically(path, b'old')
    full_disk(monkeypatch, 'file')
    with pytest.raises(OSError, match='could not be written'):
        write_atomically(path, b'n' * 1000)
    assert path.read_bytes() == b'old'
    monkeypatch.undo()
    write_atomically(path, b'new')
    assert path.read_bytes() == b'new'
    assert [entry.name for entry in path.parent.iterdir()] == ['file']


def test_a_name_is_taken_only_when_the_bytes_are_on_the_disk(
    tmp_path, monkeypatch
):
    calls = []
    for name in ('fsync', 'replace'):
        real = getattr(os, name)
        monkeypatch.setattr(
            atomic.os,
            name,
            lambda *args, name=name, real=real: (
                calls.append(name),
                real(*args),
            ),
        )
    write_atomically(tmp_path / 'file', b'x')
    assert calls == ['fsync', 'replace', 'fsync']


def test_two_writers_of_a_file_do_not_mix(tmp_path, monkeypatch):
    """The second comes and goes while the first has written its bytes."""
    path, found = tmp_path / 'file', []
    real = os.fsync

    def meanwhile(descriptor):
        if not found:
            found.append(None)
            second = threading.Thread(
                target=write_atomically, args=(path, b'two')
            )
            second.start()
            second.join()
            found.append(path.read_bytes())
        real(descriptor)

    monkeypatch.setattr(atomic.os, 'fsync', meanwhile)
    write_atomically(path, b'the first')
    assert found == [None, b'two']
    assert path.read_bytes() == b'the first'
    assert [each.name for each in tmp_path.iterdir()] == ['file']


def test_what_a_killed_process_left_is_removed(tmp_path):
    host = platform.node()
    # Of a process that is gone, of this one, of another machine, of another
    # file.
    ended = subprocess.Popen([sys.executable, '-c', ''])
    ended.wait()
    names = [
        f'file.{host}.{ended.pid}-1.partial',
        f'file.{host}.{os.getpid()}-1.partial',
        f'file.else{host}.{ended.pid}-1.partial',
        f'other.{host}.{ended.pid}-1.partial',
    ]
    for name in names:
        (tmp_path / name).touch()
    write_atomically(tmp_path / 'file', b'')
    left = {each.name for each in tmp_path.iterdir()}
    assert left == {'file', *names[1:]}


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    (tmp_path / 'file').write_bytes(b'old')
    monkeypatch.setattr(atomic.os, 'fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / 'file', b'new')
    assert [each.name for each in tmp_path.iterdir()] == ['file']
    assert (tmp_path / 'file').read_bytes() == b'old'


def test_a_run_resumed_elsewhere_leaves_the_best_one_there(
    images, tmp_path, monkeypatch
):
    settings = {'default_hooks.checkpoint.save_best': 'accuracy/top1'}
    first, second = tmp_path / 'first', tmp_path / 'second'
    config = run_config(images, classifier(), length=1, **settings)
    train(monkeypatch, first, config)
    (best,) = first.glob('best_*.pth')
    longer = run_config(images, classifier(), length=2, **settings)
    scores = iter([200.0])
    monkeypatch.setattr(
        'mmpretrain.evaluation.Accuracy.compute_metrics',
        lambda self, results: {'top1': next(scores)},
    )
    train(monkeypatch, second, longer, '--resume', str(first / 'epoch_1.pth'))
    assert best.is_file()
    assert [path.name for path in second.glob('best_*.pth')] == [
        'best_accuracy_top1_epoch_2.pth'
    ]
