"""The parts of the site's builder: links, menu, notebook, where it writes."""

import base64
import importlib.util
import json
import sys

import pytest
from conftest import ROOT

FOLDER = ROOT / 'docs' / 'site'


def part(name):
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(
        f'site_{name}', FOLDER / f'{name}.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links, navigation, notebook = map(part, ('links', 'navigation', 'notebook'))


@pytest.fixture
def root(tmp_path):
    """A repository of a few files."""
    for name in ('docs/en/a.md', 'docs/en/sub/b.md', 'configs/c.py', 'R.md'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('x')
    return tmp_path


def rewritten(root, text, name='a.md', url=''):
    made = links.Links(root, {'R.md': 'readme.md'}, url)
    text = made.rewritten(text, f'docs/en/{name}', name)
    made.check()
    return text, made.linked


@pytest.mark.parametrize(
    ('name', 'text', 'expected'),
    [
        ('a.md', '[b](sub/b.md#x)', '[b](sub/b.md#x)'),
        ('sub/b.md', '[r](../../../R.md)', '[r](../readme.md)'),
        ('a.md', '[r `x[0]`](../../R.md#y)', '[r `x[0]`](readme.md#y)'),
        ('a.md', '![p](sub/b.md)', '![p](sub/b.md)'),
        (
            'a.md',
            '[w](https://a.b/c) [h](#here)',
            '[w](https://a.b/c) [h](#here)',
        ),
        ('a.md', '```\n[n](nowhere)\n```\n', '```\n[n](nowhere)\n```\n'),
        ('a.md', '[dir](../../configs)', 'dir'),
    ],
)
def test_links_lead_to_pages_of_the_site(root, name, text, expected):
    assert rewritten(root, text, name)[0] == expected


def test_a_source_is_copied_where_there_is_no_repository(root):
    text, linked = rewritten(root, '[c](../../../configs/c.py)', 'sub/b.md')
    assert text == '<a href="../_files/configs/c.py.txt">c</a>'
    assert linked == {'_files/configs/c.py.txt': root / 'configs/c.py'}


def test_a_source_leads_to_the_repository(root):
    text, linked = rewritten(
        root,
        '[c](../../configs/c.py) [d](../../configs/)',
        url='https://host/me/it/',
    )
    assert text == (
        '<a href="https://host/me/it/blob/HEAD/configs/c.py">c</a> '
        '<a href="https://host/me/it/tree/HEAD/configs">d</a>'
    )
    assert not linked


@pytest.mark.parametrize('target', ['gone.md', '../../../out.md'])
def test_a_link_to_nothing_is_refused(root, target):
    with pytest.raises(links.BrokenLinkError, match=r'docs/en/a\.md links'):
        rewritten(root, f'[x]({target})')


def test_a_picture_that_the_site_makes_is_no_broken_link(root):
    made = links.Links(root, {}, '')
    made.made = {'docs/en/n_1.png'}
    text = '![](n_1.png)'
    assert made.rewritten(text, 'docs/en/n.md', 'n.md') == text
    made.check()


def test_new_pages_are_in_the_menu_without_being_told():
    found = navigation.sections(
        ['get_started', 'brand_new', 'measurements/z', 'api/q', 'install']
    )
    assert found['Start'] == ['get_started', 'install']
    assert found['Guides'] == ['brand_new']
    assert found['Measured'] == ['measurements/z']
    assert found['Reference'] == ['api/q']


def test_no_page_of_the_menu_is_gone():
    """A page that was removed or renamed is taken out of the menu too."""
    made = {f'api/{path}' for path in ('commands', *part_of_api())}
    there = {
        path.relative_to(ROOT / 'docs/en').with_suffix('').as_posix()
        for path in (ROOT / 'docs/en').rglob('*.*')
    } | {'readme', 'changelog', 'contributing'}
    named = {name for pages in navigation.SECTIONS.values() for name in pages}
    assert named <= there | made


def part_of_api():
    return part('api').PAGES


def test_a_notebook_becomes_a_page(tmp_path):
    picture = base64.b64encode(b'PNG').decode()
    cells = [
        dict(cell_type='markdown', source=['# Title\n', 'text']),
        dict(
            cell_type='code',
            source=['print(1)'],
            outputs=[
                dict(output_type='stream', text=['1\n', '```\n']),
                dict(output_type='display_data', data={'image/png': picture}),
            ],
        ),
    ]
    path = tmp_path / 'n.ipynb'
    path.write_text(json.dumps(dict(cells=cells)))
    assert notebook.to_markdown(path).read_text() == (
        '# Title\ntext\n\n```python\nprint(1)\n```\n\n'
        '````text\n1\n```\n````\n\n![](n_1_1.png)\n'
    )
    assert (tmp_path / 'n_1_1.png').read_bytes() == b'PNG'


def test_an_output_that_a_page_cannot_show_is_refused(tmp_path):
    output = dict(output_type='display_data', data={'text/latex': ['x']})
    cell = dict(cell_type='code', source=['x'], outputs=[output])
    path = tmp_path / 'n.ipynb'
    path.write_text(json.dumps(dict(cells=[cell])))
    with pytest.raises(ValueError, match='which a page cannot show'):
        notebook.to_markdown(path)
    assert not path.with_suffix('.md').exists()


def test_what_is_no_site_is_not_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    pytest.importorskip('sphinx')
    build = part('build')
    (tmp_path / 'thesis.tex').write_text('years')
    assert build.main(['--out', str(tmp_path)]) == 1
    assert 'is no site and would be replaced' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']
