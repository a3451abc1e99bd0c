"""Every logit loss beside its printed formula, forward and backward.

    python tools/benchmarks/losses.py [--rows 64] [--classes 100] [--json F]

Both compute the same number, which is checked first; then one call of each
in turn, on the device of ``--device``. The formulas are in formulas.py; ours
check their input and hold for rows that the formulas divide by 0 on.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

import measure
import torch
from formulas import FORMULAS

from mmrkkd.checkpoint.atomic import write_json
from mmrkkd.losses import LOSSES

# The floor under the deviation is this project's, and not the paper's.
OPTIONS = dict(KendallLoss=dict(min_std=0), RankKDLoss=dict(min_std=0))
# Float32 sums in another order.
TOLERANCE = 2e-4


def pair_of_ways(
    name: str, rows: int, classes: int, device: str
) -> dict[str, Callable]:
    """Ours and the formula, each a step on the same logits.

    Raises:
        ArithmeticError: they do not give the same number.
    """
    loss = LOSSES[name](**OPTIONS.get(name, {})).to(device)
    views = (loss.views,) if loss.views > 1 else ()
    generator = torch.Generator().manual_seed(0)
    shape = (2, *views, rows, classes)
    logits = torch.randn(shape, generator=generator).to(device)
    student, teacher = logits[0].requires_grad_(), 2 * logits[1]
    labels = torch.randint(classes, (rows,), generator=generator).to(device)
    given = labels.expand(*views, rows) if views else labels

    def ours() -> torch.Tensor:
        terms = loss(student, teacher, given if loss.needs_labels else None)
        # From the first one: 0 + a term would be one more step each way.
        first, *others = (v for key, v in terms.items() if 'loss' in key)
        return sum(others, start=first)

    def formula() -> torch.Tensor:
        return FORMULAS[name](student, teacher, labels)

    difference = abs(ours().item() - formula().item())
    if difference > TOLERANCE * max(1.0, abs(formula().item())):
        raise ArithmeticError(
            f'{name}: {ours().item()}, its formula: {formula().item()}'
        )

    def step(value: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def forward_and_backward() -> None:
            student.grad = None
            value().backward()
            if device != 'cpu':
                torch.cuda.synchronize()

        return forward_and_backward

    return dict(ours=step(ours), formula=step(formula))


def main() -> None:
    """Prints the table, a row a loss, and writes after each."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rows', type=int, default=64)
    parser.add_argument('--classes', type=int, default=100)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seconds', type=float, default=1.5, help='a loss')
    parser.add_argument(
        '--losses', nargs='+', choices=list(FORMULAS), default=list(FORMULAS)
    )
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    entries = []
    print(f'{args.rows} x {args.classes}, {args.device}, medians [quartiles]')
    print('| loss | ours, us | formula, us | formula / ours |')
    print('| --- | --- | --- | --- |')
    for name in args.losses:
        ways = pair_of_ways(name, args.rows, args.classes, args.device)
        times = measure.interleaved(ways, args.seconds, (30, 4000))
        spreads = {way: measure.spread(each) for way, each in times.items()}
        shown = [
            '{median_ms:.0f} [{low_ms:.0f}, {high_ms:.0f}]'.format(
                **{key: 1e3 * value for key, value in each.items()}
            )
            for each in spreads.values()
        ]
        ratio = spreads['formula']['median_ms'] / spreads['ours']['median_ms']
        print(f'| {name} | {" | ".join(shown)} | {ratio:.2f} |', flush=True)
        entries.append(dict(loss=name, ratio=ratio, **spreads))
        if args.json:
            write_json(
                args.json,
                dict(
                    environment=measure.environment(),
                    rows=args.rows,
                    classes=args.classes,
                    device=args.device,
                    losses=entries,
                ),
            )


if __name__ == '__main__':
    main()
