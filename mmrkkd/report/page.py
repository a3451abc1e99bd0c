"""One HTML file with everything in it: no network, opens from disk."""

import json
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import NamedTuple

ASSETS = Path(__file__).parent / 'assets'
SCRIPTS = ('tables.js', 'curves.js', 'ranking.js', 'gallery.js', 'start.js')
EXTRA = (
    'mmrkkd report needs the package plotly, which is not installed: '
    'pip install plotly'
)


class Section(NamedTuple):
    """A part of the page.

    Args:
        name: Its anchor.
        title: Its heading, plain text.
        html: What stands below.
    """

    name: str
    title: str
    html: str


def check_extra() -> None:
    """Looks for what only the page needs.

    Raises:
        ModuleNotFoundError: plotly is not installed.
    """
    if find_spec('plotly') is None:
        raise ModuleNotFoundError(EXTRA)


def page(title: str, sections: Sequence[Section], data: dict) -> str:
    """The whole page.

    Args:
        title: Its heading.
        sections: Its parts.
        data: What its scripts draw, as :mod:`json` can hold it.
    """
    from plotly.offline import get_plotlyjs

    template = Template((ASSETS / 'page.html').read_text(encoding='utf-8'))
    links = ''.join(
        f'<li><a href="#{part.name}">{escape(part.title)}</a></li>'
        for part in sections
    )
    body = '\n'.join(
        f'<section id="{part.name}" aria-labelledby="{part.name}-title">'
        f'<h2 id="{part.name}-title">{escape(part.title)}</h2>\n'
        f'{part.html}\n</section>'
        for part in sections
    )
    # No text of the data may end the script that holds it.
    packed = json.dumps(data, separators=(',', ':'), allow_nan=False)
    return template.substitute(
        title=escape(title),
        style=(ASSETS / 'page.css').read_text(encoding='utf-8'),
        links=links,
        body=body,
        data=packed.replace('<', '\\u003c'),
        plotly=get_plotlyjs(),
        scripts='\n'.join(
            (ASSETS / name).read_text(encoding='utf-8') for name in SCRIPTS
        ),
    )
