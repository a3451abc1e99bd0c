"""A notebook with its outputs as a page of Markdown."""

import base64
import json
from pathlib import Path

PICTURES = {'image/png': 'png', 'image/jpeg': 'jpg'}


def to_markdown(path: Path) -> Path:
    """Writes the page, and its pictures, beside the notebook.

    Args:
        path: The notebook, in nbformat 4.

    Returns:
        The page.

    Raises:
        ValueError: an output is of a kind that a page cannot show.
    """
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    blocks = []
    for number, cell in enumerate(cells):
        text = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            blocks.append(text)
        elif cell['cell_type'] == 'code':
            blocks.append(fenced('python', text))
            for place, output in enumerate(cell['outputs']):
                stem = f'{path.stem}_{number}_{place}'
                blocks.append(shown(output, path.parent / stem))
    page = path.with_suffix('.md')
    page.write_text('\n\n'.join(filter(None, blocks)) + '\n')
    return page


def shown(output: dict, stem: Path) -> str:
    """One output of a cell; a picture is written to ``stem`` + suffix."""
    if output['output_type'] == 'stream':
        return fenced('text', ''.join(output['text']))
    data = output.get('data', {})
    for kind, suffix in PICTURES.items():
        if kind in data:
            name = f'{stem.name}.{suffix}'
            stem.with_name(name).write_bytes(base64.b64decode(data[kind]))
            return f'![]({name})'
    for kind in ('text/markdown', 'text/plain'):
        if kind in data:
            text = ''.join(data[kind])
            return text if kind.endswith('markdown') else fenced('text', text)
    raise ValueError(
        f'a cell for {stem.name} has an output {output["output_type"]!r} of '
        f'kinds {sorted(data)}, which a page cannot show'
    )


def fenced(language: str, text: str) -> str:
    """A block of code, with a fence longer than any in it."""
    fence = '```'
    while fence in text:
        fence += '`'
    return f'{fence}{language}\n{text.rstrip()}\n{fence}'
