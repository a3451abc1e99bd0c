"""Which of MMDetection's configs distil, and with which reader.

Reads every config that the installed MMDetection ships, without building a
model, and makes docs/en/supported_detectors.md: one line for each kind of
head. ``--list`` prints one line for each config instead.
"""

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import mmdet
from config_reading import read_config
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

ROOT = Path(__file__).resolve().parents[1]
# The folder of the package, so that a checkout works uninstalled too.
sys.path[1:1] = [str(ROOT), str(ROOT / 'tests' / 'test_models')]

from mmrkkd.distillers.readers import WRAPPED  # noqa: E402
from mmrkkd.distillers.readers.box_heads import (  # noqa: E402
    REFUSED as REFUSED_BOXES,
)
from mmrkkd.distillers.readers.grid import DISTILLERS  # noqa: E402
from mmrkkd.distillers.readers.heads import HEADS  # noqa: E402
from mmrkkd.distillers.readers.query_heads import QUERY_HEADS  # noqa: E402
from mmrkkd.distillers.readers.sparse import SPARSE  # noqa: E402
from mmrkkd.report.tables import markdown_table  # noqa: E402

PAGE = ROOT / 'docs' / 'en' / 'supported_detectors.md'
CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
MADE = '<!-- Made by tools/supported_detectors.py: run it, change nothing. -->'
DISTILLER = 'it holds a teacher already: give the plain detector'
DETECTRON = "a detector of Detectron2, whose heads are not MMDetection's"
NO_DETECTOR = 'it detects no objects in single images'
# Column of the page, and what stands there for each reader.
SAMPLES = dict(
    grid='cells',
    rois="the student's boxes",
    queries='queries, matched',
    sparse='proposals, matched',
)
TESTED = (
    'The table is made by reading the configs; nothing is built. "Tested" '
    'says that a config of the line is made small and trained a step in '
    "`tests/test_models`: the task's losses stay to the bit what they are, "
    "and a teacher with the student's weights gives the student's logits."
)
NO_PREDICTION = (
    'SSD, PISA-SSD and SSDLite (SSDHead, PISASSDHead) train, but MMDetection '
    '3.3.0 and 3.5.1 cannot predict with them, distilled or plain: a run '
    "stops at its first validation, `'SSDHead' object has no attribute "
    "'loss_cls'` ([#11063](https://github.com/open-mmlab/mmdetection/issues/"
    '11063)). [A way around it]'
    '(troubleshooting.md#validation-of-an-ssd-stops).'
)
STOPPED = (
    'Those of detectors stop before the training, with the reason. Of most '
    'of them [features](features.md) can be distilled.'
)


class Verdict(NamedTuple):
    """Which reader a config gets, and why none."""

    reader: str
    head: str
    reason: str = ''


def type_name(part: object) -> str:
    """The name of a config's type; of a list its first part's."""
    if isinstance(part, list):
        part = part[0]
    kind = part.get('type', '') if isinstance(part, dict) else ''
    return kind if isinstance(kind, str) else kind.__name__


def looked_up(table: dict, name: str) -> object | None:
    """What a table of class names says of a class or its nearest ancestor."""
    kind = MODELS.get(name.split('.')[-1])
    for base in kind.__mro__ if kind is not None else ():
        if base.__name__ in table:
            return table[base.__name__]
    return None


def judge(model: dict) -> Verdict:
    """The reader that a config's model gets."""
    detector = type_name(model)
    if looked_up(dict.fromkeys(DISTILLERS, True), detector):
        return Verdict('', detector, DISTILLER)
    if detector == 'Detectron2Wrapper':
        return Verdict('', detector, DETECTRON)
    if 'detector' in model:
        inside = type_name(model['detector'])
        return Verdict('', detector, WRAPPED.format(inside))
    if 'roi_head' in model:
        return _judge_boxes(model['roi_head'])
    for part in ('bbox_head', 'panoptic_head', 'mask_head', 'rpn_head'):
        name = type_name(model.get(part))
        query = looked_up(QUERY_HEADS, name) if name else None
        if query is not None:
            return Verdict(
                '' if query.refused else 'queries', name, query.refused
            )
        spec = looked_up(HEADS, name) if name else None
        if spec is not None and part != 'panoptic_head':
            return Verdict('' if spec.refused else 'grid', name, spec.refused)
    return Verdict('', detector, NO_DETECTOR)


def _judge_boxes(head: dict) -> Verdict:
    name = type_name(head)
    if looked_up(SPARSE, name):
        return Verdict('sparse', name)
    refused = looked_up(REFUSED_BOXES, name) or ''
    box_head = head.get('bbox_head') or {}
    boxes = type_name(box_head)
    box_head = box_head[0] if isinstance(box_head, list) else box_head
    loss = type_name(box_head.get('loss_cls'))
    parts = [name, boxes]
    if loss not in ('', 'CrossEntropyLoss'):
        parts.append(loss)
    return Verdict('' if refused else 'rois', ', '.join(parts), refused)


def judged_configs() -> dict[str, Verdict | None]:
    """Each config, relative to MMDetection's folder; None if unreadable.

    Files without a model, which are parts of others, are left out.
    """
    found = {}
    for path in sorted(CONFIGS.rglob('*.py')):
        name = path.relative_to(CONFIGS).as_posix()
        if '_base_' in path.parts:
            continue
        try:
            config = read_config(path.resolve())
        except FileNotFoundError:
            # A base that MMDetection does not ship.
            found[name] = None
            continue
        if 'model' in config:
            found[name] = judge(config['model'])
    return found


def tested_configs() -> set[str]:
    """The configs that the tests train a step of, made small."""
    import small_dense_heads
    import small_query_heads
    import small_roi_heads

    return {
        config
        for module in (small_dense_heads, small_query_heads, small_roi_heads)
        for config in module.FAMILIES.values()
    }


def rows_of(found: dict[str, Verdict | None]) -> dict[Verdict, list[str]]:
    """The configs of each verdict, those with most of them first."""
    rows = defaultdict(list)
    for name, verdict in found.items():
        if verdict is not None:
            rows[verdict].append(name)
    return dict(sorted(rows.items(), key=lambda row: (-len(row[1]), row[0])))


def folders(names: list[str]) -> str:
    """'gfl (6), ld (1)'."""
    counted = Counter(name.split('/')[0] for name in names)
    return ', '.join(f'{name} ({count})' for name, count in counted.items())


def render() -> str:
    """The whole page."""
    found = judged_configs()
    rows, tested = rows_of(found), tested_configs()
    lines, refused, readers = [], [], Counter()
    for verdict, names in rows.items():
        cells = [str(len(names)), folders(names)]
        if verdict.reader:
            mark = 'yes' if tested & set(names) else ''
            lines.append([verdict.head, f'`{verdict.reader}`', mark, *cells])
            readers[verdict.reader] += len(names)
        else:
            refused.append([verdict.head, verdict.reason, *cells])
    unreadable = sum(verdict is None for verdict in found.values())
    parts = [
        MADE,
        "# Which of MMDetection's configs distil",
        f'MMDetection {mmdet.__version__} ships {len(found)} configs of '
        f'models, {unreadable} of which want files that it does not ship. '
        f'**{readers.total()} distil**, each with the reader that its head '
        "gets by `matching='auto'`; the others are [below](#not-distilled), "
        'with the reason.',
        markdown_table(
            ['Reader', 'Compares', 'Configs'],
            [
                [f'`{name}`', SAMPLES[name], str(count)]
                for name, count in readers.most_common()
            ],
            texts=2,
        ),
        TESTED,
        markdown_table(
            ['Heads', 'Reader', 'Tested', 'Configs', 'Folders (configs)'],
            lines,
            texts=5,
        ),
        NO_PREDICTION,
        '## Not distilled',
        STOPPED,
        markdown_table(
            ['Model or head', 'Reason', 'Configs', 'Folders (configs)'],
            refused,
            texts=4,
        ),
    ]
    return '\n\n'.join(parts) + '\n'


def main() -> None:
    """Writes the page, checks that it is up to date, or lists configs."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing; fail where the page is stale',
    )
    parser.add_argument(
        '--list', action='store_true', help='print a line for each config'
    )
    parser.add_argument(
        '--write', type=Path, default=PAGE, help='the page to write or check'
    )
    args = parser.parse_args()
    register_all_modules()
    if args.list:
        for name, verdict in judged_configs().items():
            verdict = verdict or Verdict('', '', 'a base of it is not shipped')
            print(name, verdict.reader or f'- ({verdict.reason})')
        return
    page = render()
    if not args.check:
        args.write.write_text(page, encoding='utf-8')
    elif not args.write.is_file() or args.write.read_text('utf-8') != page:
        sys.exit(f'{args.write} is stale: run python {Path(__file__).name}')


if __name__ == '__main__':
    main()
