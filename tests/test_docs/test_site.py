"""The documentation site builds without a warning, and nothing is broken.

make docs is what is run; what it writes is looked through without a browser.
"""

import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from conftest import ROOT

from mmrkkd import datasets, distillers, engine, losses, ops
from mmrkkd.commands.program import COMMANDS
from mmrkkd.distillers.readers import READERS
from mmrkkd.engine import hooks
from mmrkkd.losses import LOSSES
from mmrkkd.version import __version__

BUILD = ROOT / 'docs' / 'site' / 'build.py'
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    pytest.importorskip('sphinx')
    out = tmp_path_factory.mktemp('site') / 'out'
    done = subprocess.run(
        [sys.executable, BUILD, '--out', out],
        capture_output=True,
        text=True,
        env={**os.environ, 'MMRKKD_REPO_URL': ''},
    )
    assert done.returncode == 0, done.stderr
    return out


class Reader(html.parser.HTMLParser):
    """Links, anchors and what else a page loads."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids, self.loaded = [], set(), []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.update(filter(None, (found.get('id'), found.get('name'))))
        if tag == 'a' and found.get('href'):
            self.links.append(found['href'])
        if tag in ('img', 'script') and found.get('src'):
            self.loaded.append(found['src'])
        if tag == 'link' and found.get('rel') == 'stylesheet':
            self.loaded.append(found['href'])


@pytest.fixture(scope='module')
def pages(site):
    paths = [p for p in site.rglob('*.html') if '_static' not in p.parts]
    return {path: Reader(path) for path in paths}


def test_every_page_of_the_documentation_is_in_the_menu(site, pages):
    menu = {
        (site / unquote(link.partition('#')[0])).resolve()
        for link in pages[site / 'index.html'].links
        if not urlparse(link).scheme
    }
    source = ROOT / 'docs' / 'en'
    for path in [*source.rglob('*.md'), *source.rglob('*.ipynb')]:
        name = path.relative_to(source).with_suffix('.html')
        assert site / name in menu, f'{name} is not in the menu'


def test_no_link_of_the_site_is_broken(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlparse(link)
            if parts.scheme:
                continue
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
            known = pages[target].ids if target in pages else set()
            if not target.is_file() or (
                parts.fragment and unquote(parts.fragment) not in known
            ):
                broken.append(f'{path.relative_to(site)}: {link}')
    assert not broken, '\n'.join(broken)


def test_the_site_works_without_a_network(site, pages):
    for path, page in pages.items():
        for address in page.loaded:
            assert not urlparse(address).scheme, f'{path}: {address}'
            file = path.parent / urlparse(address).path
            assert file.is_file(), f'{path}: {address}'
    # The search reads its index as a script, from a disk too.
    index = (site / 'searchindex.js').read_text(encoding='utf-8')
    assert index.startswith('Search.setIndex(') and 'troubleshooting' in index


def test_the_version_is_shown(site):
    assert f'mmrkkd {__version__}' in (site / 'index.html').read_text()


def test_the_reference_has_every_public_name_and_command(site, pages):
    ids = set().union(*(page.ids for page in pages.values()))
    shown = {name.rpartition('.')[2] for name in ids}
    # Those of configs, which are found by their files.
    expected = {*LOSSES, *(kind.__name__ for kind in READERS.values())}
    for package in (datasets, distillers, engine, hooks, losses, ops):
        expected |= {
            name
            for name in package.__all__
            if callable(getattr(package, name))
        }
    assert expected <= shown
    commands = pages[site / 'api/commands.html'].ids
    assert {f'mmrkkd-{name}' for name in COMMANDS} <= commands


def test_a_docstring_keeps_its_equation(site):
    text = (site / 'api/ops.html').read_text()
    assert 'sum_{i&lt;j} ' in text and 'Problematic' not in text


def test_a_config_that_is_linked_is_in_the_site(site):
    text = (site / 'model_zoo.html').read_text()
    link = re.search(r'href="(_files/configs/[^"]+\.py\.txt)"', text)[1]
    config = Path(link.removeprefix('_files/').removesuffix('.txt'))
    assert (site / link).read_text() == (ROOT / config).read_text()
