"""Links of pages that are read on GitHub, rewritten for the site."""

import posixpath
import re
from pathlib import Path

# A link or a picture; its text may hold code and one pair of brackets.
LINK = re.compile(
    r'(?P<mark>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]'
    r'\(\s*(?P<target>[^()\s]+)\s*\)'
)
FENCE = re.compile(r'^ {0,3}(`{3,}|~{3,})')
DOCS = 'docs/en'


class BrokenLinkError(Exception):
    """A page links a file that the repository does not have."""


class Links:
    """Where the links of a page lead in the site.

    Args:
        root: The repository.
        elsewhere: Pages outside docs/en: path in the repository -> name in
            the site.
        repo_url: The repository's address, which links to configs and
            sources then lead to; '' makes them lead to copies in the site.
    """

    def __init__(self, root: Path, elsewhere: dict, repo_url: str) -> None:
        self.root = root
        self.elsewhere = elsewhere
        self.repo_url = repo_url.rstrip('/')
        # Path below the site -> file to copy there.
        self.linked: dict[str, Path] = {}
        self.broken: list[str] = []
        # Files below docs/en that only the site has.
        self.made: set[str] = set()

    def rewritten(self, text: str, path: str, name: str) -> str:
        """The page with its links rewritten.

        Args:
            text: Markdown.
            path: Where the page lies in the repository.
            name: Where it lies in the site.
        """
        self.path, self.name = path, name
        return ''.join(
            part if is_code else LINK.sub(self._link, part)
            for is_code, part in split_code(text)
        )

    def check(self) -> None:
        """Raises BrokenLinkError where a page links what is not there."""
        if self.broken:
            raise BrokenLinkError('\n'.join(self.broken))

    def _link(self, found: re.Match) -> str:
        target = found['target']
        if target.startswith('#') or re.match(r'[a-z]+:', target):
            return found[0]
        there, _, fragment = target.partition('#')
        path = posixpath.normpath(
            posixpath.join(posixpath.dirname(self.path), there)
        )
        if path in self.made:
            return found[0]
        if path.startswith('..') or not (self.root / path).exists():
            self.broken.append(
                f'{self.path} links {target}: there is no {path}'
            )
            return found[0]
        page = self._page(path)
        if page is None:
            return self._source(found, path)
        target = self._relative(page) + (f'#{fragment}' if fragment else '')
        return f'{found["mark"]}[{found["text"]}]({target})'

    def _page(self, path: str) -> str | None:
        """Its name in the site, of what is a page or a file beside one."""
        if path.startswith(f'{DOCS}/'):
            name = path[len(DOCS) + 1 :]
            return re.sub(r'\.ipynb$', '.md', name)
        return self.elsewhere.get(path)

    def _source(self, found: re.Match, path: str) -> str:
        """A link to what is no page: HTML, for Sphinx knows nothing of it."""
        is_folder = (self.root / path).is_dir()
        if self.repo_url:
            kind = 'tree' if is_folder else 'blob'
            target = f'{self.repo_url}/{kind}/HEAD/{path}'
        elif is_folder:
            return found['text']
        else:
            # As text, so that a browser shows it and does not store it.
            copy = f'_files/{path}.txt'
            self.linked[copy] = self.root / path
            target = self._relative(copy)
        return f'<a href="{target}">{found["text"]}</a>'

    def _relative(self, name: str) -> str:
        return posixpath.relpath(name, posixpath.dirname(self.name) or '.')


def split_code(text: str) -> list[tuple[bool, str]]:
    """Cuts Markdown into (is a fenced block, text) pieces, in order."""
    pieces, fence = [(False, '')], None
    for line in text.splitlines(keepends=True):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence = mark[1]
            pieces.append((True, line))
            continue
        pieces[-1] = (pieces[-1][0], pieces[-1][1] + line)
        if fence and mark and line.strip().startswith(fence):
            fence = None
            pieces.append((False, ''))
    return pieces
