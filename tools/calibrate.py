"""Measures how hard each loss term pulls at what it compares.

    python tools/calibrate.py CONFIG --share 0.3

A weight says little about a term's influence: terms differ in the size of
their gradients by orders of magnitude, and the sizes change as the student
learns. This tool prints, over some training batches, the gradient norm of
every term and the weight that would give it a wanted share. Logit losses are
measured at the student's logits, losses of features or boxes at what they
compare, each beside the task's pull there: norms at unlike places have no
sum. It trains nothing, writes nothing and changes no config.
"""

import argparse
import contextlib
import itertools
import statistics
import sys
from pathlib import Path

import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from tqdm import tqdm

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from mmrkkd.cli import add_config_options, add_trust_option, read_config
from mmrkkd.distillers.student_state import learned_in
from mmrkkd.engine import prepare_model
from mmrkkd.evaluation import load_weights
from mmrkkd.losses import KendallLoss, RankKDLoss
from mmrkkd.report.tables import plain_table

NORM = 'kd/grad_norm_'
# The task's norm at what a loss of features or boxes compares is named for it.
AT = 'task_at_'


def parse_args(argv=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_config_options(parser)
    parser.add_argument(
        '--batches',
        type=int,
        default=8,
        help='training batches to look at (default: %(default)s)',
    )
    parser.add_argument(
        '--checkpoint',
        help="the student's; default: its initial weights",
    )
    parser.add_argument(
        '--share',
        type=float,
        default=0.3,
        help='wanted share of a term in the sum of the gradient norms at one '
        'place, in (0, 1) (default: %(default)s)',
    )
    parser.add_argument(
        '--epoch',
        type=int,
        default=1,
        help='for weights that change with the epoch, counted from 1 '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of weights and batches (default: %(default)s)',
    )
    add_trust_option(parser)
    args = parser.parse_args(argv)
    if args.batches < 1:
        parser.error(f'--batches must be at least 1, got {args.batches}')
    if not 0 < args.share < 1:
        parser.error(f'--share must be in (0, 1), got {args.share}')
    if args.epoch < 1:
        parser.error(f'--epoch is counted from 1, got {args.epoch}')
    return args


@contextlib.contextmanager
def prepare(args):
    """The distiller, telling its gradients at every step, and its data.

    Raises:
        ValueError: The config distils nothing, or the checkpoint does not
            fit.
    """
    config = read_config(args)
    model = config.get('model') or {}
    if 'teacher' not in model:
        raise ValueError(
            f'{args.config} has no distillation: model.type is '
            f'{model.get("type")!r} and there is no model.teacher. '
            'Give the config of a KDClassifier or a KDDetector'
        )
    config.model.gradient_interval = 1
    torch.manual_seed(args.seed)
    with prepare_model(
        config, 'train_dataloader', args.trust_checkpoint
    ) as model:
        model.init_weights()
        if args.checkpoint is not None:
            content = load_weights(model, args.checkpoint, args.config)
            model.load_learned_state(learned_in(content))
        model.to('cuda' if torch.cuda.is_available() else 'cpu').train()
        yield (
            model,
            Runner.build_dataloader(config.train_dataloader, seed=args.seed),
        )


def measure(model, loader, batches):
    """Gradient norms of every term in every batch, by where they are.

    Args:
        model: A distiller with ``gradient_interval=1``, in train mode.
        loader: Training batches.
        batches: How many of them, fewer where there are not as many.

    Returns:
        Place, as :func:`places` names it, to term to norms, one a batch.
    """
    norms = {}
    total = min(batches, len(loader))
    for batch in tqdm(itertools.islice(loader, total), 'batches', total=total):
        batch = model.data_preprocessor(batch, True)
        terms = model(**batch, mode='loss')
        for place, found in places(terms).items():
            for term, norm in found.items():
                group = norms.setdefault(place, {})
                group.setdefault(term, []).append(float(norm))
    return norms


def places(terms):
    """The norms of a step, apart by where they were measured.

    Norms at one place follow each other in the log, and the task's is the
    last of them. Terms without it, where it could not be measured, are left
    out.

    Args:
        terms: Log key to value, in the order of the log.

    Returns:
        "the student's logits", or what a loss compares, 'of s0' and so on
        where heads are several, to {term: norm}, 'task' the last; only those
        where something but the task pulls.
    """
    found, group = {}, {}
    for key, value in terms.items():
        prefix, sign, term = key.partition(NORM)
        if not sign:
            continue
        loss = term.removeprefix(AT) if term.startswith(AT) else None
        if term != 'task' and loss is None:
            group[term] = value
            continue
        of_head = f' of {prefix.rstrip(".")}' if prefix else ''
        if loss is None:
            place = f"the student's logits{of_head}"
        else:
            place = f'what {loss}{of_head} compares'
            names = loss.split('+')
            group = {
                k: v for k, v in group.items() if k.startswith(tuple(names))
            }
        if group:
            found[place] = {**group, 'task': value}
        group = {}
    return found


def shares(norms):
    """Each term's share in the sum of norms, batch by batch.

    Args:
        norms: Term to norms at one place, see :func:`measure`.

    Returns:
        Term to shares in [0, 1]; a batch where nothing pulls counts 0.
    """
    totals = [sum(column) for column in zip(*norms.values(), strict=True)]
    return {
        term: [
            value / total if total else 0.0
            for value, total in zip(values, totals, strict=True)
        ]
        for term, values in norms.items()
    }


def factor(norms, term, share):
    """What to multiply a term's weight by for a wanted mean share.

    With n the mean norm of the term and o that of all others together,
    f n / (f n + o) = share.

    Returns:
        f > 0, or None where the term or all others do not pull.
    """
    own = statistics.fmean(norms[term])
    others = sum(
        statistics.fmean(values)
        for name, values in norms.items()
        if name != term
    )
    if not own or not others:
        return None
    return share / (1 - share) * others / own


def weights(model):
    """Where the weight of each term stands and what it is now.

    Returns:
        Term to (name of the setting, value); terms whose loss has several
        weights or none are not in it.
    """
    found = {'task': ('task_weight', model.task_weight(model.progress))}
    for loss in model.distiller:
        if isinstance(loss, RankKDLoss):
            found['rank'] = 'rank_weight', loss.now(loss.rank.rank_weight)
            found[_stem(loss.kd)] = 'kd_weight', loss.now(loss.kd_weight)
        elif isinstance(loss, KendallLoss):
            found['rank'] = 'rank_weight', loss.now(loss.rank_weight)
        elif hasattr(loss, 'loss_weight'):
            found[_stem(loss)] = 'loss_weight', loss.now(loss.loss_weight)
    return found


def _stem(loss):
    """The file of a loss names its term."""
    return type(loss).__module__.rpartition('.')[2]


def lines(norms, settings, share):
    """The table of a place, a row a term.

    Args:
        norms: Term to norms there, see :func:`measure`.
        settings: See :func:`weights`.
        share: The wanted share.
    """
    head = ['term', 'gradient norm', 'share', f'for a share of {share:g}']
    rows = []
    for term, values in shares(norms).items():
        wanted = factor(norms, term, share)
        if wanted is None:
            advice = 'it does not pull, or nothing else does'
        elif settings.get(term, ('', 0.0))[1]:
            name, weight = settings[term]
            advice = f'{name} {weight:.4g} -> {weight * wanted:.4g}'
        else:
            advice = f'its weight x {wanted:.4g}'
        rows.append(
            [term, _spread(norms[term], '.3g'), _spread(values, '.3f'), advice]
        )
    return plain_table(head, rows, texts=len(head)).split('\n')


def _spread(values, form):
    text = f'{statistics.fmean(values):{form}}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):{form}}'
    return text


def main(argv=None):
    """Measures and prints; returns the exit code."""
    args = parse_args(argv)
    try:
        print(calibrate(args))
    except (OSError, ValueError, TypeError) as error:
        print(f'calibrate: {error}', file=sys.stderr)
        return 1
    return 0


def calibrate(args):
    """Measures as the command line says; returns the text.

    Args:
        args: The parsed options.

    Raises:
        ValueError: there is nothing to measure, see also :func:`prepare`.
    """
    # Initialisation is told parameter by parameter.
    MMLogger.get_instance('calibrate', log_level='WARNING')
    with prepare(args) as (model, loader):
        if not len(loader):
            raise ValueError(
                f'train_dataloader of {args.config} must give a batch, and '
                f'gives none of its {len(loader.dataset)} samples; give it '
                'more, a smaller batch_size, or drop_last=False'
            )
        # Where a training loop would tell its classes and the epoch.
        MessageHub.get_current_instance().update_info_dict(
            dict(
                loop_stage='train',
                dataset_meta=getattr(loader.dataset, 'metainfo', None),
                epoch=args.epoch - 1,
                iter=(args.epoch - 1) * len(loader),
            )
        )
        norms = measure(model, loader, args.batches)
    if not norms:
        raise ValueError(
            f'{args.config} must have a loss whose gradient beside the '
            "task's can be measured, and has none: leave out "
            'activation checkpointing (with_cp, activation_checkpointing) and '
            'torch.compile'
        )
    count = len(next(iter(norms.values()))['task'])
    where = (
        f'of {args.checkpoint}'
        if args.checkpoint
        else 'of an untrained student (give --checkpoint for a trained one: '
        'gradients change as it learns)'
    )
    return '\n'.join(
        [
            '',
            f"Norms of the loss terms' gradients {where};",
            f'mean ± deviation over {count} batches, weights as in epoch '
            f'{args.epoch}. Each proposal changes that weight alone; nothing '
            'was changed.',
            *tables(norms, weights(model), args.share),
        ]
    )


def tables(norms, settings, share):
    """The table of each place under its name.

    Args:
        norms: See :func:`measure`.
        settings: See :func:`weights`.
        share: The wanted share.
    """
    rows = []
    if len(norms) > 1:
        rows.append(
            'Norms at unlike places cannot be compared: shares and proposals '
            'are those among the terms of a table.'
        )
    for place, found in norms.items():
        rows += ['', f'At {place}:', '']
        rows += lines(found, settings, share)
    return rows


if __name__ == '__main__':
    sys.exit(main())
