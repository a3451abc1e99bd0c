"""Real runs of MMEngine's Runner on a small generated data set."""

import copy
import json
from pathlib import Path

import pytest
import torch
from conftest import detector_config
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmrkkd.checkpoint.fetch import read_checkpoint
from mmrkkd.datasets.demo_shapes import CLASSES, Recipe, make_demo_shapes

DEMO = Path(__file__).parents[1] / 'configs' / 'demo' / 'demo_shapes.py'


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_demo_shapes(root, Recipe(train=24, val=24), progress=False)
    return root


def trains(data_root, folder):
    """A function that trains a model for some steps in a folder."""
    names = iter(range(100))

    def train(model, steps=2, name=None, **changes):
        config = Config.fromfile(DEMO)
        for part in ('train', 'val', 'test'):
            loader = config[f'{part}_dataloader']
            loader.dataset.data_root = str(data_root)
            loader.update(
                batch_size=2, num_workers=0, persistent_workers=False
            )
        for evaluator in (config.val_evaluator, config.test_evaluator):
            evaluator.ann_file = str(data_root / 'annotations' / 'val.json')
        config.model = model
        config.train_cfg.update(max_iters=steps, val_interval=1000)
        config.param_scheduler = None
        config.default_hooks.checkpoint.update(
            interval=steps, save_optimizer=True, max_keep_ckpts=-1
        )
        config.default_hooks.logger.interval = 1
        config.randomness = dict(seed=0, deterministic=True)
        number = next(names)
        config.experiment_name = f'{folder.name}_{number}'
        config.work_dir = str(folder / (name or f'run{number}'))
        # Visualizers are global: a new name for a new file of scalars.
        config.visualizer.name = config.experiment_name
        config.merge_from_dict(changes)
        runner = Runner.from_cfg(config)
        runner.train()
        return runner

    return train


@pytest.fixture
def run(data_root, tmp_path):
    """Trains a model for some steps; returns its runner."""
    return trains(data_root, tmp_path)


def student():
    return detector_config(num_classes=len(CLASSES))


@pytest.fixture(scope='module')
def teacher(data_root, tmp_path_factory):
    """A teacher's config with the checkpoint of two steps as a student."""
    train = trains(data_root, tmp_path_factory.mktemp('teacher'))
    runner = train(student(), steps=2)
    return dict(
        config=student(),
        checkpoint=f'{runner.work_dir}/iter_2.pth',
        # Runs are compared bit for bit.
        precision='float32',
    )


def distilled(teacher, **changes):
    model = dict(
        type='mmrkkd.KDDetector',
        student=student(),
        teacher=copy.deepcopy(teacher),
        losses=dict(
            type='mmrkkd.RankKDLoss',
            temperature=1.0,
            kd_weight=1.0,
            rank_weight=1.0,
        ),
    )
    model.update(changes)
    return model


def scalars(runner):
    path = next(Path(runner.work_dir).glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_checkpoints_logs_and_ema_are_a_plain_students(run, teacher):
    before = read_checkpoint(teacher['checkpoint'])['state_dict']
    runner = run(
        distilled(teacher),
        steps=3,
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
    )
    saved = torch.load(f'{runner.work_dir}/iter_3.pth', weights_only=False)
    plain = MODELS.build(student())
    plain.load_state_dict(saved['state_dict'], strict=True)
    ema = {
        key.removeprefix('module.'): value
        for key, value in saved['ema_state_dict'].items()
        if key != 'steps'
    }
    plain.load_state_dict(ema, strict=True)
    trainable = sum(p.requires_grad for p in plain.parameters())
    assert len(saved['optimizer']['state']) == trainable
    # The names of the data set came from the runner and agreed.
    assert runner.model.teacher.classes == CLASSES
    assert runner.model.class_map is not None
    after = runner.model.teacher.model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    logged = scalars(runner)[0]
    for key in (
        'loss_kd',
        'loss_rank',
        'loss_cls',
        'kd/tau',
        'kd/top1_agreement',
        'kd/kl',
    ):
        assert key in logged
    total = sum(value for key, value in logged.items() if 'loss_' in key)
    assert logged['loss'] == pytest.approx(total, rel=1e-5)


@pytest.mark.slow
def test_its_checkpoint_scores_the_same_as_a_plain_student(run, teacher):
    model = distilled(teacher)
    # After two steps no score is high: keep every box.
    model['student'].test_cfg.rcnn.score_thr = 0.0
    runner = run(model, steps=2)
    distilled_ap = runner.val_loop.run()
    config = copy.deepcopy(runner.cfg)
    config.model = model['student']
    config.load_from = f'{runner.work_dir}/iter_2.pth'
    config.experiment_name += '_plain'
    plain = Runner.from_cfg(config)
    plain_ap = plain.test()
    assert plain_ap == distilled_ap
    assert 'coco/bbox_mAP' in plain_ap
    # AP of two steps is near 0, so look at the boxes as well.
    batch = next(iter(plain.test_dataloader))
    with torch.no_grad():
        ours = runner.model.eval().val_step(copy.deepcopy(batch))
        theirs = plain.model.eval().val_step(batch)
    for a, b in zip(ours, theirs):
        assert len(a.pred_instances) > 0
        assert torch.equal(a.pred_instances.scores, b.pred_instances.scores)
        assert torch.equal(a.pred_instances.bboxes, b.pred_instances.bboxes)


@pytest.mark.slow
def test_weights_0_equal_the_plain_student_bit_for_bit(run, teacher):
    losses = dict(
        type='mmrkkd.RankKDLoss',
        temperature=1.0,
        kd_weight=0.0,
        rank_weight=0.0,
    )
    ours = run(distilled(teacher, losses=losses), steps=10)
    plain = run(student(), steps=10)
    expected = plain.model.state_dict()
    state = ours.model.state_dict()
    assert set(state) == set(expected)
    for key, value in expected.items():
        assert torch.equal(state[key], value), key
    for a, b in zip(scalars(ours), scalars(plain)):
        for key in b:
            if 'loss' in key:
                assert a[key] == b[key]


def test_distillation_changes_the_student(run, teacher):
    ours = run(distilled(teacher), steps=2).model.state_dict()
    plain = read_checkpoint(teacher['checkpoint'])['state_dict']
    assert any(not torch.equal(ours[key], plain[key]) for key in plain)


@pytest.mark.slow
def test_resumes_with_optimizer_and_teacher(run, teacher):
    steps = dict(steps=4, name='cut')
    interval = {'default_hooks.checkpoint.interval': 2}
    whole = run(distilled(teacher), **steps, **interval)
    resumed = run(
        distilled(teacher),
        resume=True,
        load_from=f'{whole.work_dir}/iter_2.pth',
        **steps,
        **interval,
    )
    assert resumed.iter == 4
    optimizer = resumed.optim_wrapper.optimizer.state_dict()['state']
    # Two steps before the checkpoint and two after it.
    assert {int(entry['step']) for entry in optimizer.values()} == {4}
    assert resumed.model.teacher.source == whole.model.teacher.source
    trained = read_checkpoint(f'{whole.work_dir}/iter_2.pth')['state_dict']
    plain = MODELS.build(student())
    plain.load_state_dict(trained, strict=True)


def test_teacher_of_other_classes_stops_at_the_first_batch(run, teacher):
    names = ['x', *CLASSES[1:]]
    with pytest.raises(ValueError, match="(?s)Only the teacher has.*'x'"):
        run(distilled(dict(teacher, classes=names)))


def test_missing_teacher_stops_before_training(run):
    with pytest.raises(FileNotFoundError, match='gone.pth.* does not exist'):
        run(distilled(dict(config=student(), checkpoint='gone.pth')))
