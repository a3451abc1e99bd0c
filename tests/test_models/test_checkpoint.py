"""Checkpoints are verified, and never run."""

import collections
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OneCycleLR

from mmrkkd.checkpoint import fetch
from mmrkkd.checkpoint.fetch import fetch_checkpoint, read_checkpoint
from mmrkkd.distillers.class_names import checkpoint_classes


@pytest.fixture
def weights_file(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(2))), path)
    return path


class Marker:
    """Unpickled for real, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_reads_what_mmengine_writes(tmp_path):
    hub = MessageHub.get_instance('test_checkpoint')
    hub.update_scalar('train/loss', 1.0)
    hub.update_info('iter', 3)
    path = tmp_path / 'iter_3.pth'
    torch.save(
        dict(
            state_dict={'module.a': torch.ones(2)},
            meta=dict(seed=np.int64(3), dataset_meta=dict(classes=['x', 'y'])),
            message_hub=hub.state_dict(),
            param_schedulers=[dict(milestones=collections.Counter([1, 2]))],
            numpy=np.arange(3.0),
        ),
        path,
    )
    content = read_checkpoint(path)
    assert list(content['state_dict']) == ['a']
    assert content['meta']['seed'] == 3
    assert checkpoint_classes(content) == ('x', 'y')


@pytest.mark.parametrize(
    'content',
    [
        dict(a=torch.ones(2)),
        dict(model=dict(a=torch.ones(2))),
        dict(state_dict=collections.OrderedDict(a=torch.ones(2))),
    ],
)
def test_known_layouts(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    assert read_checkpoint(tmp_path / 'x.pth')['state_dict']['a'].sum() == 2


def test_old_class_names():
    assert checkpoint_classes(dict(meta=dict(CLASSES=['x']))) == ('x',)
    assert checkpoint_classes(dict(meta={})) is None


@pytest.mark.parametrize(
    'content', [[1, 2], {}, dict(state_dict={}), dict(epoch=3)]
)
def test_no_weights(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='x.pth (has no weights|holds a)'):
        read_checkpoint(tmp_path / 'x.pth')


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    marker = tmp_path / 'was_run'
    path = tmp_path / 'evil.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(1)), x=Marker(marker)), path)
    with pytest.raises(
        ValueError, match=r'more than weights \(GLOBAL posix.mkdir\)'
    ):
        read_checkpoint(path)
    assert not marker.exists()
    read_checkpoint(path, trust=True)
    assert marker.exists()


def test_attributes_of_allowed_types_are_out_of_reach(tmp_path):

    class Reach:
        def __reduce__(self):
            return getattr, (np.ndarray, '__init__')

    path = tmp_path / 'evil.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(1)), x=Reach()), path)
    with pytest.raises(ValueError, match='GLOBAL builtins.getattr'):
        read_checkpoint(path)


def test_reads_beside_stateful_schedulers(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = OneCycleLR(optimizer, eta_max=0.1, total_steps=9)
    path = tmp_path / 'x.pth'
    torch.save(
        dict(
            state_dict=dict(a=torch.ones(1)),
            param_schedulers=[scheduler.state_dict()],
        ),
        path,
    )
    assert read_checkpoint(path)['state_dict']['a'].sum() == 1


@pytest.mark.parametrize('zipped', [True, False])
def test_both_file_formats_of_torch(tmp_path, zipped):
    content = dict(
        state_dict=dict(a=torch.ones(1)), x=HistoryBuffer([1.0], [1])
    )
    path = tmp_path / 'x.pth'
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(path)['state_dict']['a'].sum() == 1


def test_log_history_of_a_file_does_not_change_the_class(tmp_path):
    buffer = HistoryBuffer([1.0], [1])
    before = dict(HistoryBuffer._statistics_methods)
    path = tmp_path / 'x.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(1)), x=buffer), path)
    read_checkpoint(path)
    assert before == HistoryBuffer._statistics_methods


def test_a_long_file_that_is_cut_off(tmp_path):
    path = tmp_path / 'cut.pth'
    weights = {f'k{number}': torch.ones(1000) for number in range(50)}
    torch.save(dict(state_dict=weights), path)
    # torch looks for the end that far back.
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(ValueError, match='cut.pth (cannot be read|is cut)'):
        read_checkpoint(path)


@pytest.mark.parametrize('kept', [0, 100, 900])
def test_damaged_file(tmp_path, weights_file, kept):
    path = tmp_path / 'cut.pth'
    path.write_bytes(weights_file.read_bytes()[:kept])
    with pytest.raises(ValueError, match='cut.pth (cannot be read|holds|is )'):
        read_checkpoint(path)


def test_hash(weights_file):
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert fetch_checkpoint(weights_file, digest) == weights_file
    assert fetch_checkpoint(weights_file, digest[:8].upper()) == weights_file
    with pytest.raises(ValueError, match=f'has SHA-256 {digest}, expected'):
        fetch_checkpoint(weights_file, '0' * 64)
    with pytest.raises(ValueError, match="hexadecimal digits, got 'xyz'"):
        fetch_checkpoint(weights_file, 'xyz')


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no.pth.* does not exist'):
        fetch_checkpoint(tmp_path / 'no.pth')


@pytest.mark.parametrize('url', ['http://x.org/a.pth', 's3://x/a.pth'])
def test_only_https(url):
    with pytest.raises(ValueError, match='a path or an https URL, got'):
        fetch_checkpoint(url)


def test_download_is_cached_and_checked_by_its_published_name(
    tmp_path, monkeypatch, weights_file
):
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    calls = []

    def download(url, path):
        calls.append(url)
        with open(path, 'wb') as file:
            file.write(weights_file.read_bytes())

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    good = f'https://x.org/a_20210524_110822-{digest[:8]}.pth'
    path = fetch_checkpoint(good)
    assert path.is_relative_to(tmp_path / 'hub')
    assert fetch_checkpoint(good) == path
    assert calls == [good]
    with pytest.raises(ValueError, match='expected 00000000'):
        fetch_checkpoint('https://x.org/a-00000000.pth')


@pytest.mark.parametrize('local_rank', ['0', '1'])
def test_of_joined_processes_one_of_a_machine_downloads(
    local_rank, tmp_path, monkeypatch, one_process
):
    monkeypatch.setenv('LOCAL_RANK', local_rank)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setattr(
        torch.hub,
        'download_url_to_file',
        lambda url, path: Path(path).write_text('weights'),
    )
    if local_rank == '0':
        assert fetch_checkpoint('https://x.org/a.pth').exists()
    else:
        with pytest.raises(FileNotFoundError, match='does not exist'):
            fetch_checkpoint('https://x.org/a.pth')


def test_files_of_one_name_are_not_taken_for_each_other(tmp_path, monkeypatch):

    def download(url, path):
        with open(path, 'wb') as file:
            file.write(url.encode())

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    urls = [f'https://x.org/{name}/model.safetensors' for name in 'ab']
    for url in urls + urls:
        assert fetch_checkpoint(url).read_text() == url


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):

    def download(url, path):
        raise OSError('no route to host')

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    with pytest.raises(
        FileNotFoundError, match='no route to host; fetch it by other'
    ):
        fetch_checkpoint('https://x.org/a.pth')


def test_old_torch_reads_tensors_only(weights_file, monkeypatch):
    monkeypatch.setattr(fetch.torch, '__version__', '2.1.2')
    assert read_checkpoint(weights_file)['state_dict']['a'].sum() == 2
