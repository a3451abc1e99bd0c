"""Summaries over seeds: Student's t, runs without a seed."""

import math

import pytest

from mmrkkd.evaluation.summary import paired, quantile, summarize


@pytest.mark.parametrize(
    ('degrees', 'printed'),
    # Two-sided 95 %, as every textbook prints them.
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)],
)
def test_quantiles_are_the_table_s(degrees, printed):
    assert quantile(degrees) == pytest.approx(printed, abs=6e-4)


def test_quantiles_of_one_and_two_degrees_have_a_formula():
    # With F the cumulative probability: tan(pi (F - 1/2)), and
    # (2 F - 1) / sqrt(2 F (1 - F)).
    assert quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    second = 0.95 / math.sqrt(2 * 0.975 * 0.025)
    assert quantile(2) == pytest.approx(second, rel=1e-12)


def result(label, seed, last):
    return dict(
        label=label,
        seed=seed,
        last=last,
        best=last,
        seconds=None,
        processor_seconds=None,
        agreement={},
        gradient_shares={},
    )


def test_a_run_without_a_seed_is_first():
    results = [
        result('kd', 0, 52.0),
        result('kd', None, 50.0),
        result('rk', None, 51.0),
        result('rk', 0, 55.0),
    ]
    kd, rk = summarize(['kd', 'rk'], results, 'kd')
    assert kd['seeds'] == [None, 0] and kd['last']['values'] == [50, 52]
    assert rk['difference']['by_seed'] == {None: 1, 0: 3}


def test_intervals_are_students():
    found = paired({0: 11, 1: 23, 2: 32}, {0: 10, 1: 20, 2: 30})
    # Differences 1, 3, 2: deviation 1 over sqrt(3), two degrees of freedom.
    assert found['half_width'] == pytest.approx(4.302653 / math.sqrt(3))
