"""Settings of Sphinx; build.py makes what it reads."""

import re

from mmrkkd.version import __version__

project = 'mmrkkd'
author = 'The authors of mmrkkd'
release = version = __version__
language = 'en'

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
]
# The slugs of GitHub's headings, so that links work in both places.
myst_heading_anchors = 4

autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
toc_object_entries_show_parents = 'hide'
autodoc_member_order = 'bysource'
autosummary_generate = False
napoleon_use_rtype = False

html_theme = 'furo'
html_title = f'mmrkkd {version}'
html_static_path = ['static']
html_css_files = ['site.css']
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
pygments_style = 'friendly'
# Literal blocks of docstrings are equations.
highlight_language = 'none'

# |gamma| in a docstring is an absolute value, no substitution.
BAR = re.compile(r'(``.*?``)|(?<!\\)\|')


def escape_bars(app, what, name, value, options, lines):
    """Escapes bars in a docstring, but not where text is literal."""
    literal = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None:
            lines[number] = BAR.sub(lambda m: m[1] or r'\|', line)
            if line.rstrip().endswith('::'):
                literal = indent


def setup(app):
    app.connect('autodoc-process-docstring', escape_bars)
