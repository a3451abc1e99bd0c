"""What a check leaves: a JSON file, its tables and a picture."""

import sys
from pathlib import Path

from benchmarks import step_report
from parts import PASSED, RUNNING, Outcome

from mmrkkd.checkpoint.atomic import write_atomically, write_json
from mmrkkd.report.tables import markdown_table


def missed(outcomes: list[Outcome]) -> list[str]:
    """What did not come out as it should, a line each."""
    lines = []
    for outcome in outcomes:
        if outcome.state not in (PASSED, RUNNING):
            lines.append(
                f'{outcome.name}: {outcome.state} (exit code {outcome.code}, '
                f'{outcome.seconds:.0f} of {outcome.limit:.0f} s)'
            )
        for bar in outcome.result.get('bars', ()):
            if not bar['met']:
                lines.append(f'{outcome.name}: {bar_text(bar)}: missed')
    return lines


def bar_text(bar: dict) -> str:
    """A measurement beside what it should be."""
    kind = 'at most' if 'at_most' in bar else 'at least'
    limit, measured = bar[kind.replace(' ', '_')], bar['measured']
    measured = 'not measured' if measured is None else f'{measured:.3g}'
    return f'{bar["name"]} {measured}, {kind} {limit:g}'


def write(folder: Path, facts: dict, outcomes: list[Outcome]) -> None:
    """Writes check.json and check.md anew.

    Args:
        folder: Where to.
        facts: Versions, commit, card and arguments.
        outcomes: Of every part, some of them not yet at their end.
    """
    write_json(
        folder / 'check.json',
        dict(
            facts,
            missed=missed(outcomes),
            parts=[vars(outcome) for outcome in outcomes],
        ),
    )
    text = markdown(facts, outcomes)
    write_atomically(folder / 'check.md', text.encode())


def markdown(facts: dict, outcomes: list[Outcome]) -> str:
    """The whole table."""
    parts = [
        '# GPU check',
        f'{facts["card"]}, driver {facts["driver"]}; {facts["date"]}; commit '
        f'{facts["commit"]}; Python {facts["python"]}; '
        + ', '.join(f'{k} {v}' for k, v in facts['versions'].items()),
        markdown_table(
            ['part', 'seconds', 'limit', 'outcome'],
            [
                [
                    outcome.name,
                    f'{outcome.seconds:.0f}',
                    f'{outcome.limit:.0f}',
                    outcome.state,
                ]
                for outcome in outcomes
            ],
        ),
    ]
    bars = [bar for each in outcomes for bar in each.result.get('bars', ())]
    if bars:
        parts.append(
            '\n'.join(
                f'- {"met" if bar["met"] else "MISSED"}: {bar_text(bar)}'
                for bar in bars
            )
        )
    for outcome in outcomes:
        if 'text' in outcome.result:
            parts += [f'## {outcome.name}', outcome.result['text'].strip()]
    return '\n\n'.join(parts) + '\n'


def draw(folder: Path, outcomes: list[Outcome]) -> None:
    """A picture of each part that measured whole steps."""
    for outcome in outcomes:
        if outcome.result.get('pairs'):
            path = folder / f'{outcome.name}.png'
            try:
                step_report.draw(outcome.result, path)
            except ImportError as error:
                print(f'{path} is not drawn: {error}', file=sys.stderr)
