"""What is read of logs: over attempts, and where steps are not logged."""

import json

import pytest

from mmrkkd.report.logs import log_files, points_of, read_log, validations
from mmrkkd.report.measurements import measurements, scores

TOP1 = 'accuracy/top1'


def attempt(folder, name, *entries):
    path = folder / name / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, entries)))


def steps(first, last, **values):
    """A training entry every 10 iterations."""
    return [
        dict(values, step=step, iter=step) for step in range(first, last, 10)
    ]


def epochs(first, last, score):
    """10 iterations each, the score of epoch e is score + e."""
    for epoch in range(first, last + 1):
        step = 10 * epoch
        yield dict(loss=score, epoch=epoch, iter=step, step=step)
        yield {TOP1: score + epoch, 'step': epoch}


def read(folder):
    return read_log(log_files(folder))


def test_a_training_that_began_again_is_the_later_one(tmp_path):
    attempt(tmp_path, '1', *epochs(1, 12, 70))
    attempt(tmp_path, '2', *epochs(1, 3, 10))
    assert scores(read(tmp_path), TOP1) == [(1, 11), (2, 12), (3, 13)]
    measured = measurements(tmp_path, TOP1)
    assert (measured['last'], measured['best']) == (13, 13)
    assert (measured['best_epoch'], measured['epochs']) == (3, 3)


def test_a_training_that_goes_on_keeps_what_was_before(tmp_path):
    attempt(tmp_path, '1', *epochs(1, 5, 50))
    # Resumed after epoch 3: what epochs 4 and 5 were is lost.
    attempt(tmp_path, '2', *epochs(4, 4, 80))
    log = read(tmp_path)
    assert scores(log, TOP1) == [(1, 51), (2, 52), (3, 53), (4, 84)]
    assert points_of(log, 'loss') == [(10, 50), (20, 50), (30, 50), (40, 80)]


def test_of_an_attempt_before_its_first_validation_none_stays(tmp_path):
    attempt(tmp_path, '1', *epochs(1, 3, 50))
    attempt(tmp_path, '2', *steps(21, 30, loss=1, epoch=3))
    # Epoch 3 was not repeated to its end, and its first weights are gone.
    assert scores(read(tmp_path), TOP1) == [(1, 51), (2, 52)]


def test_a_validation_that_is_made_up_for_is_added(tmp_path):
    attempt(tmp_path, '1', *epochs(1, 3, 50), *steps(31, 40, epoch=4))
    attempt(tmp_path, 'validation', {TOP1: 60, 'step': 4})
    assert scores(read(tmp_path), TOP1)[-2:] == [(3, 53), (4, 60)]
    attempt(tmp_path, 'validation_2', {TOP1: 61, 'step': 4})
    assert scores(read(tmp_path), TOP1)[-2:] == [(3, 53), (4, 61)]


def by_iteration(*values):
    """A validation every 20 iterations, which MMEngine logs at step 0."""
    for number, value in enumerate(values):
        yield from steps(20 * number + 10, 20 * number + 21)
        yield {TOP1: value, 'step': 0}


def test_validations_at_step_0_all_stay_where_they_were(tmp_path):
    attempt(tmp_path, '1', *by_iteration(3, 9, 5))
    assert scores(read(tmp_path), TOP1) == [(20, 3), (40, 9), (60, 5)]
    measured = measurements(tmp_path, TOP1)
    assert (measured['last'], measured['best']) == (5, 9)


def test_without_a_training_entry_they_stay_in_their_order(tmp_path):
    attempt(tmp_path, '1', *({TOP1: n, 'step': 0} for n in (4, 6, 5)))
    assert [e[TOP1] for e in validations(read(tmp_path))] == [4, 6, 5]


@pytest.mark.parametrize('step', [0, 40])
def test_attempts_by_iteration_are_put_together(tmp_path, step):
    attempt(tmp_path, '1', *by_iteration(3, 9, 5))
    # Resumed after iteration 20, by a version that logs the step or not.
    attempt(tmp_path, '2', *steps(30, 41, loss=1), {TOP1: 7, 'step': step})
    assert scores(read(tmp_path), TOP1) == [(20, 3), (40, 7)]
