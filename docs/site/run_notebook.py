"""Runs a notebook of docs/en and keeps what its cells print and draw.

    python docs/site/run_notebook.py docs/en/notebooks/first_distillation.ipynb

Nothing is written unless every cell ran. Paths are kept as they are seen from
the repository, warnings of other packages are left out.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
# Printed by other packages, of no interest.
NOISE = ('Could not import OneDL', 'Loads checkpoint by', ' - mmengine - ')


def run(path: Path, folder: Path, settings: str = '') -> object:
    """Runs a notebook in a kernel of its own.

    Args:
        path: The notebook.
        folder: Where it runs and writes.
        settings: Added to the cell that is tagged 'settings'.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if settings and 'settings' in cell.metadata.get('tags', ()):
            cell.source += f'\n{settings}'
    # The kernel takes the environment of this process.
    os.environ['PYTHONPATH'] = str(ROOT)
    resources = dict(metadata=dict(path=str(folder)))
    NotebookClient(notebook, timeout=3600, resources=resources).execute()
    return notebook


def clean(notebook: object, folder: Path) -> None:
    """Takes out of the outputs what is of this machine only, in place."""
    for cell in notebook.cells:
        cell.metadata.pop('execution', None)
        if cell.cell_type != 'code':
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == 'stream':
                if output.name == 'stderr':
                    continue
                output.text = _cleaned(output.text, folder)
                if kept and kept[-1].output_type == 'stream':
                    kept[-1].text += output.text
                    continue
            if 'image/png' in output.get('data', {}):
                # The name of the figure's class, and its size.
                output.data.pop('text/plain', None)
            kept.append(output)
        cell.outputs = [o for o in kept if o.get('text', True)]
    notebook.metadata.language_info = dict(name='python')


def _cleaned(text: str, folder: Path) -> str:
    for place in (folder.resolve(), ROOT):
        text = text.replace(f'{place}/', '')
    lines = text.splitlines(keepends=True)
    return ''.join(
        line for line in lines if not any(word in line for word in NOISE)
    )


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('notebook', type=Path)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        notebook = run(args.notebook, Path(folder))
        clean(notebook, Path(folder))
    nbformat.write(notebook, args.notebook)
    return 0


if __name__ == '__main__':
    sys.exit(main())
