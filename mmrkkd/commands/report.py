"""Makes one web page of finished runs, to look at and to hand on.

    mmrkkd report work_dirs/ablation
    mmrkkd report work_dirs/alone work_dirs/distilled --scores

RUN is the work directory of a training or a distillation, or a folder of
many, as ablations and the demo leave it. The page needs no network: paired
differences, curves, scores class by class, confusions, and the images on
which the models disagree most.
"""

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmrkkd.checkpoint.atomic import write_atomically
from mmrkkd.cli import add_change_option, add_trust_option, change_config
from mmrkkd.evaluation.image_scores import Scored
from mmrkkd.evaluation.kept_predictions import SAMPLES
from mmrkkd.report.class_figure import class_figure
from mmrkkd.report.contents import (
    Contents,
    kept_contents,
    scored_contents,
)
from mmrkkd.report.curves import curves_figure
from mmrkkd.report.difference_figure import Compared, differences_figure
from mmrkkd.report.orders import answers
from mmrkkd.report.page import check_extra
from mmrkkd.report.runs import check_alike, find_runs
from mmrkkd.report.selection import Selection, class_scores_and_rows
from mmrkkd.report.whole_page import (
    Curves,
    class_chart,
    model_numbers,
    whole_page,
)

from .scoring import score_runs

PAGE = 'report.html'
SUFFIXES = ('.html', '.htm')
SCORED_IMAGES = 200
MOST_IMAGES = 200


def report(
    folders: Sequence[str | os.PathLike],
    out: str | os.PathLike | None = None,
    *,
    baseline: str | None = None,
    images: int = 24,
    scores: int = 0,
    samples: int = SAMPLES,
    files: bool = False,
    cfg_options: dict | None = None,
    trust: bool = False,
) -> Path:
    """Writes the page, whole or not at all.

    Args:
        folders: Work directories, or folders of many.
        out: The file. Defaults to ``report.html`` in the first folder.
        baseline: Label that the others are compared with. Defaults to the
            student that was trained alone, or else 'kd', or else the first.
        images: How many images the gallery shows. Defaults to 24.
        scores: Run the models on so many validation images. Defaults to 0,
            not at all.
        samples: Bootstrap samples of the images, 0 for none.
        files: Also write every chart of the page as PNG and SVG, into a
            folder named after the page. Defaults to False.
        cfg_options: Dotted name to value, changed in every config;
            ``data_root`` says where the data are.
        trust: Read checkpoints that can run code of their author. Defaults
            to False.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: there is no run, or the models' weights or data
            are missing and ``scores`` needs them.
        ModuleNotFoundError: plotly is not installed.
        ValueError: the runs cannot be compared, there is no such baseline,
            or ``out`` is no HTML file.
    """
    # What is missing is told before minutes are spent.
    check_extra()
    out = Path(out or Path(folders[0]) / PAGE)
    if out.suffix.lower() not in SUFFIXES or out.is_dir():
        raise ValueError(
            f'the page (--out) must be a file that ends with .html, got {out}'
        )
    runs, unfinished = find_runs(folders)
    for run in runs:
        change_config(run.config, cfg_options or {})
    check_alike(runs)
    selection = Selection(runs, baseline)
    contents, scored, note = _contents(selection, images, scores, trust)
    seeds = {label: len(selection.of(label)) for label in selection.labels}
    classes, rows = class_scores_and_rows(
        selection, samples, answers(scored, seeds)
    )
    names = ', '.join(Path(folder).resolve().name for folder in folders)
    text = whole_page(
        f'Distillation report: {names}',
        selection,
        rows,
        classes,
        contents,
        scored,
        unfinished,
        note,
    )
    if files:
        folder = out.with_name(f'{out.stem}_files')
        _write_charts(folder, selection, rows, classes, contents)
    write_atomically(out, text.encode())
    return out


def _contents(
    selection: Selection, images: int, scores: int, trust: bool
) -> tuple[Contents | None, dict[str, Scored], str]:
    """What is known of images, and why if it is nothing."""
    contents, scored, note = None, {}, ''
    kept = [
        next((run for run in selection.of(label) if run.predictions), None)
        for label in selection.labels
    ]
    kept = [run for run in kept if run is not None]
    if kept and images:
        try:
            contents = kept_contents(kept, images)
        except FileNotFoundError as error:
            note = f'No image is shown: {error}.'
    if scores:
        shown = contents.entries if contents else ()
        scored = score_runs(
            selection.students,
            selection.teacher_run,
            scores,
            [entry.name for entry in shown],
            contents is None,
            trust,
        )
        if contents is None:
            name = selection.teacher or 'teacher'
            contents = scored_contents(scored, name, images)
        contents.rank(scored)
    return contents, scored, note


def _write_charts(
    folder: Path,
    selection: Selection,
    rows: Sequence[dict],
    classes: Mapping[str, Mapping[str, float]],
    contents: Contents | None,
) -> None:
    curves = Curves(selection)
    figures = {
        group.split()[0].lower(): curves_figure(
            curves.runs, panels, [curves.units[group]] * len(panels)
        )
        for group, panels in curves.groups.items()
    }
    _, plotted = class_chart(selection, classes, contents)
    if plotted:
        numbers = model_numbers(selection, contents)
        figures['classes'] = class_figure(plotted, numbers)
    compared = Compared('', rows, selection.baseline, selection.metric)
    if compared.rows:
        figures['differences'] = differences_figure([compared])
    for name, figure in figures.items():
        for kind in ('png', 'svg'):
            file = io.BytesIO()
            figure.savefig(file, format=kind)
            write_atomically(folder / f'{name}.{kind}', file.getvalue())


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        'mmrkkd report', description=__doc__.split('\n')[0]
    )
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='RUN',
        help='work directory of a training or a distillation, or the folder '
        'of an ablation or the demo',
    )
    parser.add_argument(
        '--out', help=f'the page; default: {PAGE} in the first RUN'
    )
    parser.add_argument(
        '--baseline',
        metavar='NAME',
        help='what the others are compared with; default: the student that '
        'was trained alone, or kd, or the first; a run is called by its '
        "label or its folder's name",
    )
    parser.add_argument(
        '--images',
        type=int,
        default=24,
        metavar='N',
        help='images that the gallery shows (default: %(default)s)',
    )
    parser.add_argument(
        '--scores',
        type=int,
        nargs='?',
        const=SCORED_IMAGES,
        default=0,
        metavar='N',
        help='run students and teacher on N validation images, for the '
        f'order of the classes (without N: {SCORED_IMAGES})',
    )
    parser.add_argument(
        '--bootstrap',
        type=int,
        default=SAMPLES,
        metavar='SAMPLES',
        help='samples of the validation images, for intervals (default: '
        '%(default)s; 0: none)',
    )
    parser.add_argument(
        '--files',
        action='store_true',
        help='also write every chart as PNG and SVG, beside the page',
    )
    add_change_option(parser)
    add_trust_option(parser)
    args = parser.parse_args(argv)
    if not 0 <= args.images <= MOST_IMAGES:
        parser.error(
            f'--images must be in [0, {MOST_IMAGES}], got {args.images}'
        )
    if args.scores < 0:
        parser.error(f'--scores must be at least 0, got {args.scores}')
    if args.bootstrap < 0 or args.bootstrap == 1:
        parser.error(
            f'--bootstrap must be 0 or at least 2, got {args.bootstrap}'
        )
    return args


def main(argv: list[str] | None = None) -> int:
    """Writes the page as the command line says; returns the exit code."""
    args = parse_args(argv)
    try:
        path = report(
            args.runs,
            args.out,
            baseline=args.baseline,
            images=args.images,
            scores=args.scores,
            samples=args.bootstrap,
            files=args.files,
            cfg_options=args.cfg_options,
            trust=args.trust_checkpoint,
        )
    except (ImportError, OSError, ValueError) as error:
        print(f'mmrkkd report: {error}', file=sys.stderr)
        return 1
    size = path.stat().st_size / 2**20
    print(f'Report: {path} ({size:.1f} MiB)')
    return 0
