"""The notebook of a first distillation runs, and is kept with its outputs."""

import importlib.util
import json
import re

import pytest
from conftest import ROOT

NOTEBOOK = ROOT / 'docs/en/notebooks/first_distillation.ipynb'
CELLS = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
CODE = [cell for cell in CELLS if cell['cell_type'] == 'code']
# In the place of the notebook's own: what takes seconds.
TINY = 'SETTINGS = dict(images=24, teacher_epochs=1, student_epochs=1)'


def run_notebook():
    """docs/site/run_notebook.py, which is no package."""
    path = ROOT / 'docs/site/run_notebook.py'
    spec = importlib.util.spec_from_file_location('run_notebook', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(cells):
    return ''.join(
        ''.join(output.get('text', ''))
        for cell in cells
        for output in cell['outputs']
    )


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch):
    pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('PYTHONPATH', '')
    module = run_notebook()
    made = module.run(NOTEBOOK, tmp_path, TINY)
    module.clean(made, tmp_path)
    cells = [cell for cell in made.cells if cell.cell_type == 'code']
    assert len(cells) == len(CODE)
    text = printed(cells)
    assert len(re.findall(r'top-1 +\d', text)) == 4
    assert 'the same names in both' in text
    assert str(tmp_path) not in text and str(ROOT) not in text
    work = tmp_path / 'work_dirs/first_distillation'
    assert (work / 'report.html').stat().st_size > 100_000
    assert (work / 'rkkd/student.pth').is_file()


def test_it_is_kept_with_what_it_printed_and_drew():
    assert any('settings' in cell['metadata'].get('tags', ()) for cell in CODE)
    numbers = [cell['execution_count'] for cell in CODE]
    assert numbers == list(range(1, len(CODE) + 1))
    kinds = [o['output_type'] for cell in CODE for o in cell['outputs']]
    assert 'error' not in kinds and kinds.count('display_data') == 2
    assert len(re.findall(r'top-1 +\d', printed(CODE))) == 4


def test_it_names_no_folder_of_the_machine_that_ran_it():
    assert not re.findall(r'/(?:root|home|tmp|work)/\S+', printed(CODE))
