"""The rows of a table of steps: ways and methods by name, built."""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import mmrazor_ways
import pairs
import ways
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from mmrkkd.commands.methods import Method

# What a way may fail with; the others are measured all the same.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def build_steps(
    pair: pairs.Pair, args: argparse.Namespace, data: dict
) -> tuple[dict, list[dict]]:
    """The steps that work, and the rows of those that do not."""
    wrapper = AmpOptimWrapper if args.amp else OptimWrapper
    between_logs()
    bench = ways.Bench(pair, args.device, wrapper)
    steps, failed = {}, []
    found = ways.ways_of(pair, args.device) | mmrazor_ways.ways_of(pair)
    methods = {
        name: partial(ways.by_method, method_of(pair, name))
        for name in args.methods
    }
    for name, make in chosen(found, args.ways, methods).items():
        try:
            step = make(bench)
            for _ in range(1 if args.device == 'cpu' else 3):
                step(data)
            steps[name] = step
        except FAILURES as error:
            text = f'{type(error).__name__}: {error}'
            failed.append(dict(way=name, failure=text.split('\n')[0]))
    return steps, failed


def chosen(
    found: dict, names: list[str] | None, methods: dict
) -> dict[str, Callable]:
    """The ways of these names, all by default, and those of methods.

    The student alone is always one.

    Raises:
        SystemExit: there is no such way; the message has those that are.
    """
    if names is None:
        return found | methods
    unknown = sorted(set(names) - set(found))
    if unknown:
        sys.exit(
            f'--ways: there is no {unknown[0]!r}; the ways: '
            f'{", ".join(map(repr, found))}'
        )
    kept = {way: found[way] for way in found if way in (ways.ALONE, *names)}
    return kept | methods


def method_of(pair: pairs.Pair, name: str) -> Method:
    """As pairs.method_of; ends the program where there is none."""
    try:
        return pairs.method_of(pair, name)
    except ValueError as error:
        sys.exit(str(error))


def between_logs() -> None:
    """Steps are those of a run that no line of its log tells of.

    Of one in 50, MMEngine's usual interval, telemetry is made as well.
    """
    hub = MessageHub.get_instance('step')
    hub.update_info('cfg', 'default_hooks = dict(logger=dict(interval=50))')
    hub.update_info('loop_stage', 'train')
    hub.update_info('iter', 1)
