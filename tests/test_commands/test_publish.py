"""Where the published file goes."""

from pathlib import Path

import pytest
import torch

from mmrkkd.commands.program import main
from mmrkkd.commands.publish import publish


@pytest.fixture(autouse=True)
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint in the working directory, and a folder and a file."""
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=dict(x=torch.ones(2))), 'epoch_3.pth')
    Path('there').mkdir()
    Path('README.md').write_text('precious')


@pytest.mark.parametrize('out', ['there', 'there/', 'new/', 'new/sub/', '.'])
def test_in_a_folder_the_file_is_named_like_its_source(out):
    path = publish('epoch_3.pth', out)
    assert path.parent == Path(out) and path.is_file()
    assert path.name.startswith('epoch_3-') and path.suffix == '.pth'


def test_elsewhere_it_has_the_given_name():
    path = publish('epoch_3.pth', 'new/student.pth')
    assert path.parent == Path('new')
    assert path.name.startswith('student-') and path.is_file()


@pytest.mark.parametrize('out', ['README.md/x.pth', 'README.md/'])
def test_a_file_in_the_place_of_a_folder_is_named(out, capsys):
    assert main(['publish', 'epoch_3.pth', out]) == 1
    error = capsys.readouterr().err
    assert 'out must lie in a folder, and README.md is a file' in error
    assert Path('README.md').read_text() == 'precious'
