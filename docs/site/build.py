"""Builds the documentation site from docs/en: `make docs` runs this.

The pages of docs/en are read on GitHub as they are. For the site they are
copied, their links are rewritten (links.py), pages that nobody writes by hand
are made (api.py, notebook.py), and Sphinx turns all of it into HTML. A warning
is an error, and a site that is there stays until the new one is whole.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import api  # noqa: E402
import navigation  # noqa: E402
import notebook  # noqa: E402
from links import BrokenLinkError, Links  # noqa: E402
from sphinx.cmd.build import build_main  # noqa: E402

# Pages that lie elsewhere in the repository: path there, name in the site.
ELSEWHERE = {
    'README.md': 'readme.md',
    'CHANGELOG.md': 'changelog.md',
    'CONTRIBUTING.md': 'contributing.md',
}


def write_pages(source: Path, repo_url: str) -> dict[str, Path]:
    """Writes everything that Sphinx reads.

    Args:
        source: An empty folder.
        repo_url: The repository's address, or '' if it has none.

    Returns:
        The files of the repository that pages link: path below the site ->
        file.

    Raises:
        BrokenLinkError: a page links a file that is not there.
    """
    links = Links(ROOT, ELSEWHERE, repo_url)
    shutil.copytree(ROOT / 'docs' / 'en', source, dirs_exist_ok=True)
    for path in sorted(source.rglob('*.ipynb')):
        page = notebook.to_markdown(path)
        path.unlink()
        links.made |= {
            f'docs/en/{made.relative_to(source).as_posix()}'
            for made in page.parent.glob(f'{page.stem}_*')
        }
    for path in sorted(source.rglob('*.md')):
        name = path.relative_to(source).as_posix()
        text = path.read_text(encoding='utf-8')
        path.write_text(links.rewritten(text, f'docs/en/{name}', name))
    for path, name in ELSEWHERE.items():
        text = (ROOT / path).read_text(encoding='utf-8')
        (source / name).write_text(links.rewritten(text, path, name))
    links.check()
    api.write_pages(source / 'api')
    names = [
        path.relative_to(source).with_suffix('').as_posix()
        for path in source.rglob('*.md')
    ]
    home = (HERE / 'home.md').read_text(encoding='utf-8')
    (source / 'index.md').write_text(home + navigation.toctrees(names))
    return links.linked


class SiteError(Exception):
    """Sphinx found something wrong, or the site cannot lie there."""


def build(out: Path, repo_url: str = '') -> None:
    """Builds the site.

    Args:
        out: Its folder; a site that is there is replaced.
        repo_url: The repository's address, or '' if it has none.

    Raises:
        BrokenLinkError: a page links a file that is not there.
        SiteError: Sphinx warned, or something else than a site is there.
    """
    if out.exists() and not (out / 'searchindex.js').is_file():
        raise SiteError(
            f'--out {out} is no site and would be replaced: name a folder '
            'that does not exist'
        )
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / 'source', Path(folder) / 'site'
        source.mkdir()
        linked = write_pages(source, repo_url)
        options = ['-b', 'html', '-c', HERE, '-d', Path(folder) / 'doctrees']
        # In this process, which has imported what the reference shows.
        status = build_main(
            [*map(str, [*options, source, made]), '-W', '--keep-going', '-q']
        )
        if status:
            raise SiteError(
                'the warnings above are to be mended; nothing was written'
            )
        for name, path in linked.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, made / name)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=ROOT / 'site')
    parser.add_argument(
        '--repo-url',
        default=os.environ.get('MMRKKD_REPO_URL', ''),
        help='address of the repository, which links to configs and sources '
        'then lead to, e.g. https://github.com/OWNER/mmrkkd; by default that '
        'of MMRKKD_REPO_URL, and without one the site has copies of them',
    )
    args = parser.parse_args(argv)
    try:
        build(args.out, args.repo_url)
    except (BrokenLinkError, SiteError) as error:
        print(f'make docs: {error}', file=sys.stderr)
        return 1
    print(f'Documentation: {(args.out / "index.html").absolute()}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
