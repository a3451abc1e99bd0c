"""A file that is no checkpoint is told by what it is."""

import gzip
import io
import json
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from mmrkkd.checkpoint import (
    fetch_checkpoint,
    read_checkpoint,
    read_training_state,
)
from mmrkkd.checkpoint.training_state import check_intact

ADVICE = (
    'In PyTorch 2.6, we changed the default. Re-running `torch.load` with '
    '`weights_only` set to `False` will likely succeed'
)


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


def empty_tar():
    file = io.BytesIO()
    tarfile.open(fileobj=file, mode='w').close()
    return file.getvalue()


def scripted():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


def arrays():
    file = io.BytesIO()
    np.savez(file, a=np.ones(2))
    return file.getvalue()


PAGE = r'a web page \(HTML\)'
POINTER = 'a Git LFS pointer.*git lfs pull'
MEDIA = 'an image or a video'
INDEX = {
    'metadata': {'total_size': 1},
    'weight_map': {
        'a': 'model-00001-of-00002.safetensors',
        'b': 'model-00001-of-00002.safetensors',
        'c': 'model-00002-of-00002.safetensors',
    },
}
FOREIGN = {
    'web page': (
        b'\n <!DOCTYPE html>\n<html><title>Sign in</title>',
        r'a web page \(HTML\).*download the file itself',
    ),
    'web page after a comment': (b'<!-- x -->\n<!DOCTYPE html>', PAGE),
    'web page in a long comment': (b'<!--' + 5000 * b' x' + b'-->', PAGE),
    'web page without a head': (b'<body class="x">Sign in', PAGE),
    'web page in UTF-16': ('<html>Gäste</html>'.encode('utf-16'), PAGE),
    'web page in Latin-1': ('<html>Gäste</html>'.encode('latin-1'), PAGE),
    'XHTML': (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC', PAGE),
    'git lfs': (
        b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n',
        POINTER,
    ),
    'git lfs behind a mark': (
        b'\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\noid',
        POINTER,
    ),
    'old git lfs': (b'version https://hawser.github.com/spec/v1\n', POINTER),
    'git-annex': (b'/annex/objects/SHA256E-s1--ab.pth\n', 'a git-annex poi'),
    'shards': (
        json.dumps(INDEX).encode(),
        r'the index of a model .*\(model-00001-of-00002.safetensors, '
        r'model-00002-of-00002.safetensors, \.\.\.\): join them',
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
    'xml without a prologue': (b'<Error>x', 'an XML document.*<Error>x'),
    'empty': (b'', 'empty: .*fetch it again'),
    'zeros': (bytes(9000), 'filled with zeros, .*: fetch it again'),
    'empty tar': (empty_tar(), 'filled with zeros, as an empty tar archive'),
    'gzip': (gzip.compress(saved()), 'a gzip archive: unpack it'),
    'zip': (zipped(), 'a zip archive that holds a.pth: unpack it'),
    'tar': (tarred(), 'a tar archive: unpack it'),
    'npz': (arrays(), 'a zip archive that holds a.npy'),
    'torchscript': (scripted(), 'a TorchScript program'),
    'detectron2': (
        pickle.dumps(dict(model=dict(a=np.ones(2)))),
        'a pickle that torch.save did not write.*Detectron2',
    ),
    'image': (b'\xff\xd8\xff\xe0 JFIF', MEDIA),
    'gif': (b'GIF89a', MEDIA),
    'webp': (b'RIFF\0\0\0\0WEBP', MEDIA),
    'mp4': (b'\0\0\0 ftypisom', MEDIA),
    'onnx': (b'\x08\x07\x12\x07pytorch\x1a\x051.9.0', 'an ONNX file'),
    'flax': (b'\x83\xa6params\x81', 'a MessagePack file, as Flax'),
    'tensorflow': (
        b'\0\0\5bias' + bytes(8) + b'W\xfb\x80\x8b$uG\xdb',
        "the index of TensorFlow's weights: convert",
    ),
    'bytes of no format': (
        bytes(range(50, 256)),
        'damaged or no checkpoint: it begins with',
    ),
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
        assert 'weights_only' not in str(error.value)


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


@pytest.mark.parametrize(
    'told, kept',
    [
        (f'Not with the legacy .tar format. {ADVICE}', 'Not with .* format.'),
        (
            f'Weights only load failed. {ADVICE}\nx',
            'Weights only load failed.',
        ),
        (ADVICE, 'RuntimeError'),
    ],
)
def test_torchs_advice_to_run_the_file_is_not_passed_on(
    tmp_path, monkeypatch, told, kept
):
    def refuse(*args, **kwargs):
        raise RuntimeError(told)

    path = tmp_path / 'teacher.pth'
    path.write_bytes(saved())
    monkeypatch.setattr(torch, 'load', refuse)
    with pytest.raises(ValueError, match=f'no checkpoint: {kept}$'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    'names, message',
    [
        ([], 'is a folder without a checkpoint in it'),
        (
            ['optimizer.pt', 'model.safetensors', 'config.json'],
            'is a folder: give .*/teacher/model.safetensors$',
        ),
        (
            ['epoch_1.pth', 'epoch_2.pth', 'config.py'],
            'give one of the files in it: epoch_1.pth, epoch_2.pth$',
        ),
        (
            ['model.safetensors.index.json', 'model-1-of-2.safetensors'],
            'a folder of a model whose weights are split over several files',
        ),
        (['mp_rank_00_model_states.pt'], 'of DeepSpeed, .*zero_to_fp32.py'),
        (
            ['latest', 'step1/zero_pp_rank_0_mp_rank_00_optim_states.pt'],
            'of DeepSpeed, .*zero_to_fp32.py',
        ),
        (['.metadata', '__0_0.distcp'], 'dcp_to_torch FOLDER FILE'),
        (['archive/data.pkl', 'archive/version'], 'was unpacked into'),
    ],
)
def test_a_folder_is_called_one_and_the_file_in_it_is_named(
    tmp_path, names, message
):
    folder = tmp_path / 'teacher'
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b'x')
    for read in (fetch_checkpoint, read_training_state):
        with pytest.raises(IsADirectoryError, match=message):
            read(folder)


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
