"""Makes the configs of feature methods for classifiers.

A config is the pair, the data, the schedule and the method of
``configs/_base_``, and what ``configs/classification/features.yml`` says of
the pair: layers and weights. Each is an ordinary config, to be run, inherited
and read; what is to be changed for good is changed in that file.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'classification'
TABLE = CONFIGS / 'features.yml'
WIDTH = 79
# What may stand in the table, and in each of its parts.
TABLE_KEYS = {'networks', 'methods', 'datasets'}
METHOD_KEYS = {
    'title', 'student', 'teacher', 'only', 'last', 'also', 'beside_kd',
    'optimizer', 'dataset',
}  # fmt: skip
DATASET_KEYS = {
    'file', 'data', 'schedule', 'note', 'methods', 'rate', 'without',
    'batch', 'settings', 'student', 'feature_size',
}  # fmt: skip
BATCH_KEYS = {'file', 'images', 'rate', 'base'}


def configs(table: dict) -> Iterator[tuple[Path, str]]:
    """Path and text of each config of the table.

    Args:
        table: The content of features.yml.

    Raises:
        ValueError: a key, method, pair or network is none that there is.
    """
    refuse_unknown(table, TABLE_KEYS, 'the table')
    for method, about in table['methods'].items():
        refuse_unknown(about, METHOD_KEYS, f'methods: {method}')
    for folder, facts in table['datasets'].items():
        bases = sorted((CONFIGS / folder / '_base_').glob('*_*.py'))
        pairs = {path.stem: path for path in bases}
        refuse_unknown_parts(folder, facts, table, set(pairs))
        for method in facts['methods']:
            without = facts.get('without', {}).get(method, ())
            for pair, base in pairs.items():
                if pair in without:
                    continue
                batch = facts.get('batch', {}).get(method, {})
                name = batch.get('file', facts['file'])
                stem = f'{method}_{pair.replace("_", "-")}_{name}'
                path = CONFIGS / folder / pair / f'{stem}.py'
                yield path, render(table, facts, method, base, folder)


def refuse_unknown_parts(
    folder: str, facts: dict, table: dict, pairs: set[str]
) -> None:
    """Raises where a data set's part names what there is not.

    Args:
        folder: Of the data set.
        facts: Its part of the table.
        table: The content of features.yml.
        pairs: The pairs that the folder has.

    Raises:
        ValueError: see :func:`configs`.
    """
    refuse_unknown(facts, DATASET_KEYS, folder)
    refuse_unknown(facts['methods'], set(table['methods']), folder)
    refuse_unknown(
        facts.get('rate', {}), set(table['networks']), f'{folder}: rate'
    )
    for part in ('settings', 'without', 'batch', 'student'):
        place = f'{folder}: {part}'
        refuse_unknown(facts.get(part, {}), set(facts['methods']), place)
    for part in ('settings', 'without'):
        for method, of_pairs in facts.get(part, {}).items():
            refuse_unknown(of_pairs, pairs, f'{folder}: {part}: {method}')
    for method, batch in facts.get('batch', {}).items():
        refuse_unknown(batch, BATCH_KEYS, f'{folder}: batch: {method}')


def refuse_unknown(found: Iterable[str], known: set[str], place: str) -> None:
    """Raises where there is a name that is none of the known ones.

    Args:
        found: The names.
        known: Those that there are.
        place: Where they stand, for the message.

    Raises:
        ValueError: the first of them, and the known ones.
    """
    for name in found:
        if name not in known:
            raise ValueError(
                f'{TABLE.name}: {place} has {name!r}, which is none of '
                f'{", ".join(sorted(known))}'
            )


def render(
    table: dict, facts: dict, method: str, base: Path, folder: str
) -> str:
    """The text of one config.

    Args:
        table: The content of features.yml.
        facts: Its part for the data set.
        method: Name of the method.
        base: The pair's file.
        folder: Of the data set.
    """
    about = table['methods'][method]
    settings = facts.get('settings', {}).get(method, {})
    settings = dict(settings.get(base.stem) or {})
    notes = [settings.pop('note', ''), facts.get('note', '')]
    teacher, student = base.stem.split('_')
    layers = layers_of(table, facts, method, student, teacher)
    data = '_'.join(filter(None, (facts['data'], about.get('dataset'))))
    bases = [
        f'../_base_/{base.name}',
        f'../../../_base_/datasets/{data}.py',
        f'../../../_base_/schedules/{facts["schedule"]}.py',
        f'../../../_base_/methods/{method_file(method, folder)}',
        '../../_base_/runtime.py',
    ]
    pair = base.read_text().split('.')[0].strip('# ')
    title = f'{about["title"]}: {pair.replace(" teaches ", " -> ")}.'
    lines = [
        *textwrap.wrap(
            ' '.join(filter(None, (title, *notes))),
            WIDTH,
            initial_indent='# ',
            subsequent_indent='# ',
        ),
        '_base_ = [',
        *(f"    '{path}'," for path in bases),
        ']',
        '',
        *model_lines(
            {**layers, **settings},
            about.get('beside_kd', False),
            facts.get('feature_size'),
        ),
    ]
    batch = facts.get('batch', {}).get(method, {})
    rate = batch.get('rate', facts.get('rate', {}).get(student))
    optimizer = {} if rate is None else dict(lr=rate)
    optimizer.update(about.get('optimizer', {}))
    if optimizer:
        changes = dict(optimizer=optimizer)
        lines.append(f'optim_wrapper = {written(changes)}')
    if batch:
        lines += [
            f'train_dataloader = dict(batch_size={batch["images"]})',
            f'auto_scale_lr = dict(base_batch_size={batch["base"]})',
        ]
    return '\n'.join(lines) + '\n'


def method_file(method: str, folder: str) -> str:
    """Name of the method's file, the data set's own if there is one."""
    own = f'{folder}_{method}.py'
    there = (ROOT / 'configs' / '_base_' / 'methods' / own).is_file()
    return own if there else f'{method}.py'


def model_lines(
    changes: dict, beside_kd: bool = False, feature_size: int | None = None
) -> list[str]:
    """The model, with some options of its losses changed.

    Args:
        changes: Of the method's loss; ``kd``, of the one that it is beside.
        beside_kd: Whether the method's file has two. Defaults to False.
        feature_size: Side of the images in pixels. Defaults to None, not
            stated.
    """
    side = [] if feature_size is None else [f'feature_size={feature_size}']
    if not changes:
        options = ', '.join(['**_base_.distillation', *side])
        return [f'model = dict({options})']
    base = '_base_.distillation.losses'
    if not beside_kd:
        first, *rest = changed(base, changes)
        losses = [f'losses={first}', *rest]
    else:
        kd = changes.pop('kd', {})
        losses = ['losses=[']
        for item, options in ((f'{base}[0]', kd), (f'{base}[1]', changes)):
            losses += [f'    {line}' for line in changed(item, options)]
        losses.append('],')
    return [
        'model = dict(',
        *(f'    {line}' for line in losses),
        '    task_weight=_base_.distillation.task_weight,',
        *(f'    {option},' for option in side),
        ')',
    ]


def changed(base: str, changes: dict) -> list[str]:
    """The code of a dict of a base config with some options changed."""
    if not changes:
        return [f'{base},']
    options = [line for item in changes.items() for line in option(*item)]
    return ['dict(', f'    {base},', *(f'    {o}' for o in options), '),']


def option(name: str, value: object) -> list[str]:
    """A keyword argument: on one line, or a list with one item on each."""
    line = f'{name}={written(value)},'
    # As deep as the options of a loss may stand.
    if isinstance(value, list) and len(line) + 12 > WIDTH:
        items = [f'    {written(item)},' for item in value]
        return [f'{name}=[', *items, '],']
    return [line]


def written(value: object) -> str:
    """A value as Python code."""
    if isinstance(value, dict):
        pairs = (f'{name}={written(item)}' for name, item in value.items())
        return f'dict({", ".join(pairs)})'
    return repr(value)


def layers_of(
    table: dict, facts: dict, method: str, student: str, teacher: str
) -> dict[str, list[str]]:
    """The layers that a method compares, where its file does not say.

    Args:
        table: The content of features.yml.
        facts: Its part for the data set.
        method: Name of the method.
        student: Name of the student's network.
        teacher: Name of the teacher's.

    Raises:
        ValueError: there is another word for layers than a network has.
    """
    about = table['methods'][method]
    own = facts.get('student', {}).get(method, about.get('student'))
    sides = {}
    for side, name, kind in (
        ('student_layers', student, own),
        ('teacher_layers', teacher, about.get('teacher')),
    ):
        if kind is None:
            return {}
        network = table['networks'][name]
        if kind not in network:
            raise ValueError(
                f'{method} compares one of {", ".join(network)}, got {kind!r}'
            )
        sides[side] = network[kind]
    count = min(map(len, sides.values()))
    further = [about['also']] if 'also' in about else []
    for side, layers in sides.items():
        layers = layers[:count]
        if 'last' in about:
            layers = [*layers[:-1], about['last']]
        if 'only' in about:
            layers = [layers[about['only']]]
        sides[side] = layers + further
    if sides['student_layers'] == sides['teacher_layers']:
        del sides['teacher_layers']
    return sides


def main() -> None:
    """Writes the configs, or checks that they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing; fail where a config is missing or another',
    )
    args = parser.parse_args()
    stale = []
    for path, text in configs(yaml.safe_load(TABLE.read_text())):
        if path.is_file() and path.read_text(encoding='utf-8') == text:
            continue
        stale.append(path.relative_to(ROOT).as_posix())
        if not args.check:
            path.write_text(text, encoding='utf-8')
    if args.check and stale:
        sys.exit(
            f'{len(stale)} configs are stale, such as {stale[0]}: run python '
            f'tools/{Path(__file__).name}'
        )
    print(f'{len(stale)} configs written' if stale else 'all up to date')


if __name__ == '__main__':
    main()
