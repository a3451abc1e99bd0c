"""Two parts of an annotation file, which harm no file that is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

from dataset_tools import hold_out as tool  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)


@pytest.fixture
def source(tmp_path):
    """Ten images, each with one box."""
    content = dict(
        images=[dict(id=n, file_name=f'{n}.jpg') for n in range(10)],
        annotations=[dict(id=n, image_id=n) for n in range(10)],
        categories=[dict(id=1, name='cat')],
    )
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(content))
    return path


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def images(path):
    return [image['id'] for image in json.loads(path.read_text())['images']]


def run(monkeypatch, *arguments):
    """The command line; returns what it ends with."""
    monkeypatch.setattr(sys, 'argv', ['hold_out.py', *map(str, arguments)])
    try:
        tool.main()
    except SystemExit as end:
        return end.code
    return None


def test_both_parts_are_the_whole_and_the_same_again(source, tmp_path):
    out = tmp_path / 'parts'
    assert tool.write_parts(source, out, 0.3) == [7, 3]
    before = files(out)
    assert set(before) == {'fit.json', 'held_out.json'}
    both = images(out / 'fit.json') + images(out / 'held_out.json')
    assert sorted(both) == list(range(10))
    assert tool.write_parts(source, out, 0.3) == [7, 3]
    assert files(out) == before


@pytest.mark.parametrize('name', ['fit.json', 'held_out.json'])
def test_the_source_is_never_written_over(source, tmp_path, name, monkeypatch):
    out = tmp_path / 'parts'
    out.mkdir()
    source = source.rename(out / name)
    before = files(out)
    end = run(monkeypatch, source, out)
    assert end.startswith(f'hold_out: {source} is there and is not this part')
    assert files(out) == before


def test_another_split_is_not_replaced(source, tmp_path, monkeypatch):
    out = tmp_path / 'parts'
    tool.write_parts(source, out, 0.3)
    before = files(out)
    end = run(monkeypatch, source, out, '--share', '0.5')
    assert 'name another folder' in end
    assert files(out) == before


def test_an_interrupted_write_leaves_no_half_file(
    source, tmp_path, monkeypatch
):
    out = tmp_path / 'parts'

    def fails(*arguments):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', fails)
    end = run(monkeypatch, source, out)
    assert end.startswith('hold_out: ') and 'No space left' in end
    assert files(out) == {}


@pytest.mark.parametrize(
    'text,message',
    [
        ('', 'is no JSON file'),
        ('[]', "is no annotation file in COCO's format"),
        ('{"images": [], "annotations": []}', 'got 0.2 of 0 images'),
        ('{"images": [{"id": 1}], "annotations": []}', 'list images of dicts'),
        ('{"images": []}', "list annotations of dicts with ['image_id']"),
    ],
)
def test_what_is_no_annotation_file_is_refused(
    tmp_path, monkeypatch, text, message
):
    (tmp_path / 'x.json').write_text(text)
    end = run(monkeypatch, tmp_path / 'x.json', tmp_path / 'out')
    assert end.startswith('hold_out: ') and message in end
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['gone.json', '.'])
def test_a_source_that_cannot_be_read_is_named(tmp_path, monkeypatch, name):
    end = run(monkeypatch, tmp_path / name, tmp_path / 'out')
    assert end.startswith('hold_out: ') and str(tmp_path / name) in end


def test_a_file_is_no_folder(source, tmp_path, monkeypatch):
    (tmp_path / 'README.md').write_text('precious')
    end = run(monkeypatch, source, tmp_path / 'README.md')
    assert end.startswith('hold_out: ') and 'README.md' in end
    assert (tmp_path / 'README.md').read_text() == 'precious'


@pytest.mark.parametrize('share', ['2', '0', 'nan'])
def test_a_share_out_of_range_is_refused(source, tmp_path, monkeypatch, share):
    end = run(monkeypatch, source, tmp_path / 'out', '--share', share)
    assert end.startswith('hold_out: share must be in (0, 1)')


@pytest.mark.slow
def test_the_script_runs_uninstalled_and_ends_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, tool.__file__, 'gone.json', 'out'],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert 'hold_out: ' in done.stderr and 'Traceback' not in done.stderr
