"""Makes docs/en/model_zoo.md from the configs, published and own numbers.

Our own numbers are files docs/en/results/zoo_*.json, one for each config::

    {"config": "configs/classification/.../kd_....py",
     "top1": [73.1, 73.4],        one number for each run, in %
     "commit": "...", "hardware": "..."}
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(ROOT))

from mmrkkd.report.tables import markdown_table  # noqa: E402

CONFIGS = ROOT / 'configs' / 'classification'
DETECTION = ROOT / 'configs' / 'detection'
RESULTS = ROOT / 'docs' / 'en' / 'results'
PAGE = ROOT / 'docs' / 'en' / 'model_zoo.md'
MAIN = {
    'kd': 'KD',
    'rkkd': 'KD + RK',
    'ctkd': 'CTKD',
    'ctkd-rk': 'CTKD + RK',
    'dkd': 'DKD',
    'dkd-rk': 'DKD + RK',
    'mlkd': 'MLKD',
    'mlkd-rk': 'MLKD + RK',
    'lskd': 'LSKD',
    'dist': 'DIST',
    'lra': 'LRA',
}
FURTHER = {
    'dot': 'KD + DOT',
    'nkd': 'NKD',
    'ttm': 'TTM',
    'wttm': 'WTTM',
    'crld': 'CRLD',
}
FEATURES = {
    'fitnet': 'FitNet',
    'at': 'AT',
    'vid': 'VID',
    'rkd': 'RKD',
    'sp': 'SP',
    'ickd': 'ICKD-C',
    'crd': 'CRD',
    'ofd': 'OFD',
    'reviewkd': 'ReviewKD',
    'simkd': 'SimKD',
    'catkd': 'CAT-KD',
    'norm': 'NORM',
    'fcfd': 'FCFD',
}
RESULT_KEYS = {'config', 'top1', 'commit', 'hardware'}
MADE = '<!-- Made by tools/model_zoo.py: change its sources, not this. -->'


def read_results(folder: Path = RESULTS) -> dict[str, str]:
    """Our own numbers.

    Returns:
        Config, relative to the root, to the text of its cell.

    Raises:
        ValueError: a file lacks an entry, names no config, or one twice.
    """
    cells = {}
    for path in sorted(folder.glob('zoo_*.json')):
        result = json.loads(path.read_text())
        missing = RESULT_KEYS - set(result)
        if missing or not result['top1']:
            raise ValueError(
                f'{path.name} needs {sorted(RESULT_KEYS)} and at least one '
                f'run in top1; missing: {sorted(missing) or "runs"}'
            )
        config = result['config']
        if not (ROOT / config).is_file():
            raise ValueError(f'{path.name}: there is no config {config!r}')
        if config in cells:
            raise ValueError(f'{path.name}: {config!r} has another file')
        runs = result['top1']
        text = f'{statistics.mean(runs):.2f}'
        if len(runs) > 1:
            text += f' ± {statistics.stdev(runs):.2f}'
        cells[config] = f'**{text}** ({len(runs)})'
    return cells


def link(text: str, path: Path) -> str:
    """A link to a file of the repository from the page."""
    return f'[{text}](../../{path.relative_to(ROOT).as_posix()})'


class Section:
    """The section of one data set.

    Args:
        folder: Its folder in configs/classification.
        facts: Its part of published.yml.
        results: What :func:`read_results` gave.
    """

    def __init__(self, folder: str, facts: dict, results: dict) -> None:
        self.folder, self.facts, self.results = folder, facts, results
        self.marks: list[str] = []

    def config(self, pair: str, method: str) -> Path | None:
        """The config of a cell, or None."""
        name = f'{method}_{pair.replace("_", "-")}_*.py'
        found = sorted((CONFIGS / self.folder / pair).glob(name))
        return found[0] if found else None

    def cell(self, value: object, path: Path | None, label: str = '') -> str:
        """One cell: label or number with its link, marks, our number."""
        number, *marks = value if isinstance(value, list) else [value]
        if number is None and path is None:
            return label
        if isinstance(number, float):
            number = f'{number:.2f}'
        text = ' '.join(part for part in (label, number) if part) or '-'
        if path is not None:
            text = link(text, path)
        if marks:
            text += f' <sup>{" ".join(marks)}</sup>'
            self.marks += marks
        own = path and self.results.get(path.relative_to(ROOT).as_posix())
        return f'{text}<br>{own}' if own else text

    def model(self, name: str) -> str:
        """The cell of a model that was trained alone."""
        places = [self.folder, self.facts.get('teachers', self.folder)]
        found = [
            path
            for place in places
            for path in sorted((CONFIGS / place).glob(f'{name}_*.py'))
        ]
        known = self.facts['models'].get(name)
        return self.cell(known, found[0] if found else None, name)

    def pairs(self, columns: dict[str, str], every_pair: bool) -> str:
        """A table with one row for each pair; nothing if it has no rows."""
        rows = []
        for pair, numbers in self.facts['pairs'].items():
            cells = [
                self.cell(numbers.get(method), self.config(pair, method))
                for method in columns
            ]
            if every_pair or any(cells):
                models = [self.model(name) for name in pair.split('_')]
                rows.append([*models, *cells])
        if not rows:
            return ''
        own = self.facts.get('columns', {})
        self.marks += [own[name] for name in columns if name in own]
        titles = [
            title + (f' <sup>{own[name]}</sup>' if name in own else '')
            for name, title in columns.items()
        ]
        return markdown_table(['Teacher', 'Student', *titles], rows, texts=2)

    def present(self, columns: dict[str, str]) -> dict[str, str]:
        """Those columns that have a config or a number."""
        pairs = self.facts['pairs'].items()
        return {
            method: title
            for method, title in columns.items()
            if any(
                method in numbers or self.config(pair, method)
                for pair, numbers in pairs
            )
        }

    def sources(self) -> str:
        """What the published numbers of the section are taken from."""
        source = self.facts.get('source')
        text = 'Published numbers' + (f': {source}' if source else '')
        return text + (', and where marked' if self.marks else '')

    def render(self, marks: dict[str, str]) -> str:
        """The data set's section."""
        main = self.pairs(self.present(MAIN), every_pair=True)
        features = self.pairs(self.present(FEATURES), every_pair=False)
        further = self.pairs(FURTHER, every_pair=False)
        notes = [
            f'- {mark}: {marks[mark]}' for mark in dict.fromkeys(self.marks)
        ]
        parts = [
            f'## {self.facts["title"]}',
            self.facts['text'],
            main,
            f'Losses of features:\n\n{features}' if features else '',
            f'Further methods:\n\n{further}' if further else '',
            self.sources() + (':' if notes else '.'),
            '\n'.join(notes),
        ]
        return '\n\n'.join(part for part in parts if part)


def render_detection(facts: dict) -> str:
    """The sections of configs/detection/published.yml."""
    parts = []
    for section in facts['sections']:
        folder, marks, rows = DETECTION / section['folder'], [], []
        for title, method, *numbers in section['rows']:
            own = [mark for mark in numbers if isinstance(mark, str)]
            marks += own
            values = [value for value in numbers if value not in own]
            cells = [f'{value:.2f}' for value in values]
            cells += ['-'] * (3 - len(cells))
            if own:
                cells[0] += f' <sup>{" ".join(own)}</sup>'
            rows.append(
                [detection_link(title, method, folder, section['pair'])]
            )
            rows[-1] += cells
        notes = [
            f'- {mark}: {facts["marks"][mark]}'
            for mark in dict.fromkeys(marks)
        ]
        parts += [
            f'## {section["title"]}',
            section['text'],
            markdown_table(['Method', 'AP', 'AP50', 'AP75'], rows),
            'Published numbers:',
            '\n'.join(notes),
        ]
    return '\n\n'.join(parts)


def detection_link(
    title: str, method: str | None, folder: Path, pair: str
) -> str:
    """A row's title, with a link to its config where it has one.

    Raises:
        ValueError: there is no such config.
    """
    if method is None:
        return title
    # A whole name has its pair in it.
    name = method if '_' in method else f'{method}_{pair}'
    found = sorted(folder.glob(f'{name}_*.py'))
    if not found:
        raise ValueError(f'{folder.name} has no config {name}_*.py')
    return link(title, found[0])


def render_ablations(plan: dict) -> str:
    """The sweeps of rkkd_ablations.yml."""
    path = CONFIGS / 'rkkd_ablations.yml'
    parts = [
        '## Ablations of the ranking term',
        'On CIFAR-100, each cell the KD + RK config of its pair with the '
        'options of its row ('
        + link('rkkd_ablations.yml', path)
        + '); the numbers are those printed by Guan et al.',
    ]
    for sweep in plan['sweeps']:
        published = sweep.get('published', {})
        rows = [
            [f'`{options}`']
            + [f'{column[row]:.2f}' for column in published.values()]
            for row, options in enumerate(sweep_options(sweep))
        ]
        head = ['`--cfg-options`', *published]
        parts += [
            f'### {sweep["title"]}',
            markdown_table(head, rows),
            sweep['note'],
        ]
    return '\n\n'.join(parts)


def sweep_options(sweep: dict) -> list[str]:
    """What stands after --cfg-options, for each value of a sweep."""
    return [sweep['options'].format(*value) for value in sweep['values']]


def render() -> str:
    """The whole page.

    Raises:
        ValueError: a result belongs to a config without a cell.
    """
    facts = yaml.safe_load((CONFIGS / 'published.yml').read_text())
    detection = yaml.safe_load((DETECTION / 'published.yml').read_text())
    plan = yaml.safe_load((CONFIGS / 'rkkd_ablations.yml').read_text())
    results = read_results()
    sections = [
        MADE,
        facts['intro'].strip(),
        '## Methods',
        markdown_table(
            ['Method', 'Loss', 'Paper', 'Configs'], facts['methods'], texts=4
        ),
        *(
            Section(folder, part, results).render(facts['marks'])
            for folder, part in facts['datasets'].items()
        ),
        render_detection(detection),
        render_ablations(plan),
    ]
    page = '\n\n'.join(sections) + '\n'
    lost = [config for config in results if config not in page]
    if lost:
        raise ValueError(f'no table has a cell for the results of {lost}')
    return page


def main() -> None:
    """Writes the page, or checks that it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing; fail where the page is stale',
    )
    args = parser.parse_args()
    page = render()
    if not args.check:
        PAGE.write_text(page, encoding='utf-8')
    elif not PAGE.is_file() or PAGE.read_text(encoding='utf-8') != page:
        sys.exit(f'{PAGE} is stale: run python {Path(__file__).name}')


if __name__ == '__main__':
    main()
