"""Class names and progress are those of the run that trains."""

import copy

import pytest
import torch
from mmdet.datasets import ConcatDataset as MMDetConcatDataset
from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
)
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from small_classifiers import CLASSES, Images, distilled, make_runner
from torch import nn

from mmrkkd.distillers import running
from mmrkkd.distillers.running import training_classes, training_progress
from mmrkkd.losses import Progress

TRAIN, VAL = ('c', 'b', 'a'), ('a', 'b', 'c')


class Items(BaseDataset):
    """Four numbers, under names of their own."""

    def load_data_list(self):
        return [dict(x=float(number)) for number in range(4)]

    def __getitem__(self, index):
        return dict(x=torch.tensor([self.get_data_info(index)['x']]))

    def get_cat_ids(self, index):
        return [index % 2]


class Asks(BaseModel):
    """Asks at every step what a distiller asks at the first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.heard = []

    def forward(self, x, mode='tensor'):
        if mode == 'loss':
            self.heard.append((training_classes(), training_progress()))
            return dict(loss=self.layer(torch.stack(x)).mean())
        return [x]


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(n=len(results))


class ValidatesFirst(Hook):
    """A validation before the first step, as some recipes have."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        runner.val_loop.run()


def items(names=TRAIN, **metainfo):
    if names is not None:
        metainfo['classes'] = names
    return Items(metainfo=metainfo)


def loader(dataset):
    return dict(
        dataset=dataset,
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )


@pytest.fixture
def run(tmp_path):
    """A runner of two steps that validates after each."""
    numbers = iter(range(100))

    def make(train=None, val=None, length=2, by_epoch=False, **changes):
        kind = 'epochs' if by_epoch else 'iters'
        settings = dict(
            model=Asks(),
            work_dir=str(tmp_path / 'run'),
            train_dataloader=loader(items() if train is None else train),
            train_cfg=dict(
                by_epoch=by_epoch, val_interval=1, **{f'max_{kind}': length}
            ),
            val_dataloader=loader(items(VAL) if val is None else val),
            val_cfg=dict(),
            val_evaluator=Evaluator(Nothing(prefix='x')),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', interval=1, by_epoch=by_epoch
                )
            ),
            custom_hooks=[ValidatesFirst()],
            experiment_name=f'{tmp_path.name}_{next(numbers)}',
            log_level='WARNING',
        )
        return Runner(**{**settings, **changes})

    return make


def classes_heard(runner):
    return [classes for classes, _ in runner.model.heard]


def steps_heard(runner):
    return [progress.iteration for _, progress in runner.model.heard]


@pytest.mark.parametrize('by_epoch', [False, True])
def test_names_are_the_training_sets_whatever_is_validated(run, by_epoch):
    runner = run(by_epoch=by_epoch)
    runner.train()
    assert set(classes_heard(runner)) == {TRAIN}


def test_names_are_known_where_the_validation_set_has_none(run):
    runner = run(val=items(None))
    runner.train()
    assert set(classes_heard(runner)) == {TRAIN}


@pytest.mark.parametrize('begin', [1, 5])
def test_names_do_not_hang_on_when_validation_begins(run, begin):
    runner = run(
        train_cfg=dict(
            by_epoch=False, max_iters=2, val_begin=begin, val_interval=1
        ),
        custom_hooks=[],
    )
    runner.train()
    assert classes_heard(runner) == [TRAIN] * 2


def test_a_resumed_run_has_its_own_names(run, monkeypatch):
    # Files of this test alone.
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    run(train=items(('x', 'y', 'z')), length=1).train()
    runner = run(resume=True, length=3)
    runner.train()
    assert classes_heard(runner) == [TRAIN] * 2
    assert steps_heard(runner) == [2, 3]


def test_the_runner_that_trains_is_asked_not_the_latest_made(run):
    first = run()
    other = run(train=items(VAL), length=1)
    other.train()
    run()
    first.train()
    assert set(classes_heard(first)) == {TRAIN}
    assert steps_heard(first) == [1, 2]
    assert classes_heard(other) == [VAL]


@pytest.mark.parametrize(
    'wrap',
    [
        lambda: RepeatDataset(items(), 2),
        lambda: ClassBalancedDataset(items(), 0.1),
        lambda: ConcatDataset([items(), items()]),
        lambda: ConcatDataset(
            [items(palette=1), items(palette=2)], ignore_keys='palette'
        ),
        lambda: MMDetConcatDataset([items(), items()]),
        lambda: MMDetConcatDataset(
            [items(palette=1), items(palette=2)], ignore_keys='palette'
        ),
        lambda: MMDetConcatDataset([items(palette=1), items(palette=2)]),
        lambda: MMDetConcatDataset([items(), items(None)]),
    ],
)
def test_wrapped_training_sets(run, wrap):
    runner = run(train=wrap())
    runner.train()
    assert set(classes_heard(runner)) == {TRAIN}


def test_concatenated_sets_that_contradict_each_other(run):
    runner = run(train=MMDetConcatDataset([items(), items(VAL)]))
    with pytest.raises(
        ValueError, match='names of the training set .* differ between the 2'
    ):
        runner.train()


def test_one_name_without_a_comma(run):
    with pytest.raises(
        ValueError, match=r"of the training set .* string 'no such file'.*',\)"
    ):
        run(train=items('no such file')).train()


def test_unknown_names_are_told_in_the_log(run, monkeypatch):
    messages = []
    monkeypatch.setattr(
        running, 'print_log', lambda text, **_: messages.append(text)
    )
    runner = run(train=items(None), length=1)
    runner.train()
    assert classes_heard(runner) == [None]
    assert 'names of the training set are not known' in messages[0]


def test_without_a_run_nothing_is_known():
    MessageHub._instance_dict.clear()
    assert training_classes() is None
    assert training_progress() == Progress(1, 1)


class NamedImages(Images):
    def __init__(self, names):
        super().__init__()
        self.metainfo = dict(classes=names)


@pytest.mark.parametrize('names', [CLASSES, CLASSES[::-1]])
def test_a_teachers_channels_go_to_the_training_sets_names(tmp_path, names):
    model = copy.deepcopy(distilled())
    model.pop('class_names')
    validation = dict(
        dataset=NamedImages(CLASSES),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=8,
        collate_fn=dict(type='default_collate'),
    )
    runner = make_runner(
        model,
        tmp_path / 'run',
        steps=1,
        train_dataloader=dict(validation, dataset=NamedImages(names)),
        val_dataloader=validation,
        val_cfg=dict(),
        val_evaluator=dict(type='Accuracy'),
    )
    runner.train()
    class_map = runner.model.class_map
    teacher = torch.arange(5.0)
    # Each of the student's names meets the teacher's score of that name.
    assert class_map.select_teacher(teacher).tolist() == [
        float(CLASSES.index(name)) for name in names
    ]


def permuted_model():
    """A distiller that learns its classes' order from a run."""
    config = distilled()
    del config['class_names']
    config['teacher']['classes'] = CLASSES[::-1]
    return config


def test_a_step_before_the_run_settles_nothing(tmp_path):
    from small_classifiers import batch

    runner = make_runner(permuted_model(), tmp_path / 'run', steps=1)
    model = runner.model
    data = model.data_preprocessor(batch(), True)
    model(**data, mode='loss')
    assert model.class_map.teacher is None
    runner.train()
    assert model.class_map.teacher == tuple(range(len(CLASSES)))[::-1]


def test_a_second_run_brings_its_own_names(tmp_path):
    first = make_runner(permuted_model(), tmp_path / 'first', steps=1)
    first.train()
    model = first.model
    assert model.class_map.teacher == (4, 3, 2, 1, 0)

    class Renamed(Images):
        metainfo = dict(classes=CLASSES[::-1])

    second = make_runner(
        model,
        tmp_path / 'second',
        steps=1,
        train_dataloader=dict(
            dataset=Renamed(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=8,
            collate_fn=dict(type='default_collate'),
        ),
    )
    second.train()
    assert model.class_map.teacher is None


def test_a_run_without_runtime_info_is_warned(tmp_path, caplog):
    runner = make_runner(
        distilled(),
        tmp_path / 'run',
        steps=1,
        default_hooks=dict(runtime_info=None),
        custom_hooks=[dict(type='mmrkkd.RunStateHook')],
    )
    told = []
    runner.logger.warning = told.append
    runner.train()
    assert any('default_hooks.runtime_info is off' in text for text in told)
