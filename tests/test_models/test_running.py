"""What a run's own words say of when its logger writes."""

import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub

from mmrkkd.distillers.running import is_logged


@pytest.fixture
def hub():
    hub = MessageHub.get_instance('running')
    hub.update_info('loop_stage', 'train')
    return hub


def logged(hub, hooks, steps, epochs, total):
    """The steps, from 1, that are logged."""
    hub.update_info('cfg', Config(dict(default_hooks=hooks)).pretty_text)
    hub.update_info('max_epochs', epochs)
    hub.update_info('max_iters', total)
    found = []
    for step in range(steps):
        hub.update_info('iter', step)
        if is_logged():
            found.append(step + 1)
    return found


def test_every_interval_of_an_epoch_its_end_and_the_first_step(hub):
    hooks = dict(logger=dict(type='LoggerHook', interval=4))
    # Two epochs of ten steps.
    assert logged(hub, hooks, 20, 2, 20) == [1, 4, 8, 10, 14, 18, 20]


def test_a_run_by_iterations_has_one_epoch(hub):
    hooks = dict(
        checkpoint=dict(type='CheckpointHook', interval=3),
        logger=dict(type='LoggerHook', interval=5),
    )
    assert logged(hub, hooks, 12, 1, 100) == [1, 5, 10]


@pytest.mark.parametrize(
    'hooks', [dict(), dict(logger=None), dict(logger=dict(interval='often'))]
)
def test_where_it_is_not_known_every_step_is(hub, hooks):
    assert logged(hub, hooks, 3, 1, 3) == [1, 2, 3]


def test_text_that_is_no_python_and_no_run(hub):
    hub.update_info('cfg', 'default_hooks = dict(')
    assert is_logged()
    hub.pop_info('loop_stage')
    assert is_logged()
