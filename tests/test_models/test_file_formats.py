"""A file that is no checkpoint is told by what it is."""

import gzip
import io
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from mmrkkd.checkpoint import read_checkpoint, read_training_state
from mmrkkd.checkpoint.training_state import check_intact


def saved(content=None, **options):
    file = io.BytesIO()
    torch.save(content or dict(a=torch.ones(2)), file, **options)
    return file.getvalue()


def zipped(name='a.pth'):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr(name, saved())
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        entry = tarfile.TarInfo('a.pth')
        entry.size = len(saved())
        archive.addfile(entry, io.BytesIO(saved()))
    return file.getvalue()


def scripted():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


def arrays():
    file = io.BytesIO()
    np.savez(file, a=np.ones(2))
    return file.getvalue()


FOREIGN = {
    'web page': (
        b'\n <!DOCTYPE html>\n<html><title>Sign in</title>',
        r'a web page \(HTML\).*download the file itself',
    ),
    'git lfs': (
        b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n',
        'a Git LFS pointer.*git lfs pull',
    ),
    'json': (b'{"message": "Not Found"}', 'a JSON file .*Not Found'),
    'text': (
        'Zugriff verweigert für Gäste\n'.encode(),
        'a text file .*verweigert',
    ),
    'xml': (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        'an XML document.*AccessDenied',
    ),
    'empty': (b'', 'empty: .*fetch it again'),
    'gzip': (gzip.compress(saved()), 'a gzip archive: unpack it'),
    'zip': (zipped(), 'a zip archive that holds a.pth: unpack it'),
    'tar': (tarred(), 'a tar archive: unpack it'),
    'npz': (arrays(), 'a zip archive that holds a.npy'),
    'torchscript': (scripted(), 'a TorchScript program'),
    'detectron2': (
        pickle.dumps(dict(model=dict(a=np.ones(2)))),
        'a pickle that torch.save did not write.*Detectron2',
    ),
    'image': (b'\xff\xd8\xff\xe0 JFIF', 'an image'),
    'cut off': (saved()[:600], 'cut off: .*take another copy'),
}


@pytest.mark.parametrize('kind', FOREIGN)
@pytest.mark.parametrize('trust', [False, True])
def test_says_what_the_file_is(tmp_path, kind, trust):
    if kind == 'torchscript' and trust:
        pytest.skip('torch.load reads one when it may run code')
    content, message = FOREIGN[kind]
    path = tmp_path / 'teacher.pth'
    path.write_bytes(content)
    for read in (read_checkpoint, read_training_state):
        with pytest.raises(
            ValueError, match=rf'(?s)teacher.pth is {message}'
        ) as error:
            read(path, trust=trust)
        assert 'trust' not in str(error.value)


@pytest.mark.parametrize('new', [True, False])
def test_trust_is_advised_where_it_helps(tmp_path, new):
    path = tmp_path / 'teacher.pth'
    path.write_bytes(
        saved(torch.nn.Linear(2, 2), _use_new_zipfile_serialization=new)
    )
    with pytest.raises(
        ValueError, match=r'more than weights \(GLOBAL torch.nn.*trust_check'
    ):
        read_checkpoint(path)


def test_bytes_of_no_format_are_no_reason_to_trust(tmp_path):
    path = tmp_path / 'teacher.pth'
    path.write_bytes(bytes(range(50, 256)))
    for trust in (False, True):
        with pytest.raises(ValueError, match='damaged or no checkpoint'):
            read_checkpoint(path, trust)


def test_safetensors_are_read(tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    path = tmp_path / 'model.safetensors'
    weights = {
        'backbone.w': torch.arange(6.0).reshape(2, 3),
        'head.b': torch.ones(2, dtype=torch.bfloat16),
    }
    safetensors.save_file(weights, path, metadata=dict(format='pt'))
    content = read_checkpoint(path)
    assert content['meta'] == {}
    assert content['state_dict'].keys() == weights.keys()
    for key, value in weights.items():
        assert torch.equal(content['state_dict'][key], value)
    # MMEngine takes a bare state dict too.
    assert read_training_state(path, 'cpu').keys() == weights.keys()
    with pytest.raises(ValueError, match='no state that a run can go on'):
        check_intact(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match='a damaged safetensors file'):
        read_checkpoint(path)


def test_without_the_reader_of_safetensors(tmp_path, monkeypatch):
    path = tmp_path / 'model.pth'
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    path.write_bytes(len(header).to_bytes(8, 'little') + header)
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(
        ImportError, match='model.pth is a safetensors file.*pip install saf'
    ):
        read_checkpoint(path)
