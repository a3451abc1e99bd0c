"""What an epoch is in a run that counts iterations."""

import pytest
from mmengine.dataset import InfiniteSampler
from mmengine.logging import MessageHub
from small_classifiers import Images, distilled, make_runner
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from mmrkkd.distillers.running import training_progress
from mmrkkd.engine import epoch_length
from mmrkkd.engine.epoch_length import iterations_of_a_pass
from mmrkkd.losses import Progress

RUN_STATE = dict(type='mmrkkd.RunStateHook')
# Of 16 images in batches of 8 an epoch is two iterations.
KD = dict(type='mmrkkd.KDLoss', loss_weight=dict(type='linear', end=2))


def weights(runner):
    """The weight of the loss in each step, from the log."""
    model, seen = runner.model, []
    loss = model.distiller[0]
    loss.register_forward_hook(
        lambda *_: seen.append(loss.now(loss.loss_weight))
    )
    runner.train()
    return seen


def test_an_epoch_of_iterations_is_a_pass_over_the_data(tmp_path):
    runner = make_runner(
        distilled(KD), tmp_path, steps=5, custom_hooks=[RUN_STATE]
    )
    assert weights(runner) == [0.5, 0.5, 1, 1, 1]


def test_a_resumed_run_goes_on_in_its_epoch(tmp_path):
    loss = dict(KD, loss_weight=dict(type='linear', end=4))
    hooks = dict(custom_hooks=[RUN_STATE])
    make_runner(distilled(loss), tmp_path, steps=3, **hooks).train()
    runner = make_runner(
        distilled(loss), tmp_path, steps=6, resume=True, **hooks
    )
    assert weights(runner) == [0.5, 0.75, 0.75]


@pytest.mark.parametrize('losses', [KD, dict(type='mmrkkd.CTKDLoss')])
def test_where_nobody_tells_an_epoch_the_first_step_refuses(tmp_path, losses):
    runner = make_runner(distilled(losses), tmp_path)
    with pytest.raises(
        ValueError, match="by='epoch' .* by='iteration' .*RunStateHook"
    ):
        runner.train()


def test_the_weight_of_the_task_is_no_exception(tmp_path):
    model = distilled(task_weight=dict(type='step', milestones=[1]))
    with pytest.raises(ValueError, match='got 1 times 0.1 after each epoch'):
        make_runner(model, tmp_path).train()


def test_a_schedule_by_iteration_needs_no_epoch(tmp_path):
    ramp = dict(type='linear', end=2, by='iteration')
    runner = make_runner(distilled(dict(KD, loss_weight=ramp)), tmp_path)
    assert weights(runner) == [0.5, 1, 1]


def test_a_run_of_one_epoch_is_no_run_by_iterations(tmp_path):
    runner = make_runner(
        distilled(KD),
        tmp_path,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        custom_hooks=[RUN_STATE],
    )
    assert weights(runner) == [0.5, 0.5]


@pytest.fixture
def hub():
    hub = MessageHub.get_instance('epochs_of_iterations')
    hub.update_info('loop_stage', 'train')
    yield hub
    hub.pop_info('loop_stage')


@pytest.mark.parametrize(
    'text,epoch',
    [
        ('train_cfg = dict(max_epochs=1, type="EpochBasedTrainLoop")', 1),
        ('train_cfg = dict(by_epoch=False, max_iters=9)', None),
        # A runner that was made without a config.
        ('', None),
    ],
)
def test_what_the_config_says_of_one_epoch(hub, text, epoch):
    hub.update_info_dict(dict(cfg=text, max_epochs=1, epoch=0, iter=7))
    assert training_progress() == Progress(epoch, 8)


def test_several_epochs_are_counted_by_the_loop(hub):
    hub.update_info_dict(dict(cfg='', max_epochs=3, epoch=2, iter=7))
    assert training_progress() == Progress(3, 8)


def loader(sampler, grouped):
    images = Images()
    sampler = sampler(images)
    if grouped:
        batches = BatchSampler(sampler, 3, drop_last=False)
        return DataLoader(images, batch_sampler=batches)
    return DataLoader(images, batch_size=3, sampler=sampler)


@pytest.mark.parametrize('grouped', [False, True])
def test_an_infinite_sampler_counts_the_images_of_all_processes(
    monkeypatch, grouped
):
    # 16 images in batches of 3: 6 of one process, 3 of each of two.
    assert iterations_of_a_pass(loader(InfiniteSampler, grouped)) == 6
    monkeypatch.setattr(epoch_length, 'get_world_size', lambda: 2)
    assert iterations_of_a_pass(loader(InfiniteSampler, grouped)) == 3
    # Any other sampler counts those of its process.
    assert iterations_of_a_pass(loader(SequentialSampler, grouped)) == 6
