"""mmrkkd check-teacher, and the hook of the same: good, useless, unlike."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from conftest import classifier_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmpretrain.models.heads import LinearClsHead
from small_runs import (
    CLASSES,
    draw_images,
    random_weights,
    student_config,
    train_teacher,
)
from torch import nn

from mmrkkd.commands.program import main
from mmrkkd.datasets.demo_shapes import Recipe, make_demo_shapes
from mmrkkd.distillers.class_map import ClassMap
from mmrkkd.engine import prepare_run
from mmrkkd.engine.hooks import (
    CheckTeacherHook,
    UselessTeacherError,
    check_teacher,
)
from mmrkkd.evaluation.teacher_scores import (
    TeacherScores,
    _in_students_classes,
    judged,
    teacher_scores,
    useless,
)

DEMO = Path(__file__).parents[2] / 'configs' / 'demo' / 'demo_shapes.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images, a config, a teacher that knows colours and one that does not."""
    folder = tmp_path_factory.mktemp('check')
    draw_images(folder)
    config = student_config(folder, epochs=8)
    config.dump(folder / 'plain.py')
    trained = train_teacher(config, folder / 'run')
    content = torch.load(trained, weights_only=False)
    weights = content['state_dict']
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(meta=meta, state_dict=weights), folder / 'good.pth')
    # The same teacher, its classes in another order.
    for key in ('head.fc.weight', 'head.fc.bias'):
        weights[key] = weights[key][[2, 0, 1]]
    meta = dict(dataset_meta=dict(classes=('fish', 'cat', 'dog')))
    torch.save(dict(meta=meta, state_dict=weights), folder / 'turned.pth')
    random_weights(classifier_config(), folder / 'random.pth')
    return folder


@pytest.fixture(autouse=True)
def at_home(folder, monkeypatch):
    """Commands are given in the folder of the files."""
    monkeypatch.chdir(folder)
    yield
    for manager in (DefaultScope, MMLogger):
        manager._instance_dict.clear()


def check(*arguments):
    return main(['check-teacher', *arguments])


def test_a_trained_teacher_is_of_use(capsys):
    assert check('plain.py', 'good.pth', '--student', 'plain.py') == 0
    text = capsys.readouterr().out
    weights = len(torch.load('good.pth')['state_dict'])
    assert f'weights   {weights} of {weights} found\n' in text
    assert 'classes   3, the same names in the same order' in text
    assert 'input     same input for both' in text
    assert 'score     accuracy/top1 100 (12 validation images)' in text
    assert 'ranking   tau ' in text and 'top1_agreement ' in text
    assert ' s with the teacher, ' in text
    assert 'MB with the teacher, ' in text
    assert 'Verdict: nothing speaks against it.' in text


def test_old_names_of_weights_are_counted(capsys, monkeypatch):
    """Those that a module renames while it loads."""

    def rename(self, state_dict, prefix, *args):
        for name in ('weight', 'bias'):
            old = state_dict.pop(f'{prefix}old_{name}', None)
            if old is not None:
                state_dict[f'{prefix}fc.{name}'] = old
        return nn.Module._load_from_state_dict(self, state_dict, prefix, *args)

    monkeypatch.setattr(LinearClsHead, '_load_from_state_dict', rename)
    content = torch.load('good.pth')
    weights = content['state_dict']
    number = len(weights)
    for name in ('weight', 'bias'):
        weights[f'head.old_{name}'] = weights.pop(f'head.fc.{name}')
    torch.save(content, 'old.pth')
    assert check('plain.py', 'old.pth', '--student', 'plain.py') == 0
    text = capsys.readouterr().out
    assert (
        f'weights   {number} of {number} found, 2 by an old name\n'
    ) in text


def test_a_random_teacher_is_useless(capsys):
    arguments = ('plain.py', 'random.pth', '--images', '9')
    assert check(*arguments) == 1
    text = capsys.readouterr().out
    assert '(9 validation images)' in text
    assert 'Verdict: USELESS: accuracy/top1 is ' in text
    assert 'guessing among 3 classes reaches 80.5 % on 9 images' in text
    assert 'The rule: a detector below 1 AP' in text


def test_classes_in_another_order_are_scored_in_the_students(capsys):
    assert check('plain.py', 'turned.pth', '--student', 'plain.py') == 0
    text = capsys.readouterr().out
    assert 'classes   3, the same names in another order' in text
    assert 'accuracy/top1 100 ' in text
    # By itself it is judged by the data's own order: always wrong.
    assert check('plain.py', 'turned.pth') == 1
    assert 'accuracy/top1 0 ' in capsys.readouterr().out


def test_another_preprocessing_is_told_and_bridged(folder, capsys):
    config = Config.fromfile('plain.py')
    config.data_preprocessor = dict(mean=[0.0] * 3, std=[255.0] * 3)
    config.val_dataloader.dataset.pipeline.insert(
        1, dict(type='Resize', scale=64)
    )
    config.dump('other.py')
    check('other.py', 'good.pth', '--student', 'plain.py')
    text = capsys.readouterr().out
    assert 'input     converts mean and std' in text
    assert 'input     student: mean [120.0, 120.0, 120.0], std [60.0' in text
    assert 'input     teacher: mean [0.0, 0.0, 0.0], std [255.0' in text
    assert (
        'made by no resizing, those that the teacher was validated on by'
        in text
    )
    assert 'Resize 64' in text


def test_the_config_of_a_distillation_names_its_student(folder, capsys):
    config = Config.fromfile('plain.py')
    config.model = distilled(folder, 'random.pth')
    config.dump('kd.py')
    assert check('plain.py', 'good.pth', '--student', 'kd.py') == 0
    assert 'nothing speaks against it' in capsys.readouterr().out


def test_weights_of_the_student_that_are_not_there_do_not_matter(capsys):
    config = Config.fromfile('plain.py')
    gone = dict(type='Pretrained', checkpoint='gone.pth')
    config.model.backbone.init_cfg = gone
    config.dump('pretrained.py')
    assert check('plain.py', 'good.pth', '--student', 'pretrained.py') == 0
    text = capsys.readouterr().out
    assert "initial weights of the student: checkpoint 'gone.pth'" in text
    assert 'accuracy/top1 100 ' in text


def test_weights_that_do_not_fit_are_listed(folder, capsys):
    config = Config.fromfile('plain.py')
    config.model = classifier_config(depth=14)
    config.dump('deeper.py')
    for student in ([], ['--student', 'plain.py']):
        assert check('deeper.py', 'good.pth', *student) == 1
        text = capsys.readouterr().out
        assert 'does not fit teacher.config' in text
        assert 'Missing keys (' in text
        assert 'Verdict: USELESS: it cannot teach as it is' in text


def test_other_classes_are_useless(folder, capsys):
    names = ('cat', 'dog', 'bird')
    random_weights(classifier_config(), 'birds.pth', classes=names)
    assert check('plain.py', 'birds.pth', '--student', 'plain.py') == 1
    text = capsys.readouterr().out
    assert "Only the teacher has (1): 'bird'" in text
    assert 'Verdict: USELESS' in text


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['gone.py', 'good.pth'], "config 'gone.py' does not exist"),
        (['plain.py', 'gone.pth'], "checkpoint 'gone.pth' does not exist"),
        (
            ['plain.py', 'good.pth', '--student', 'plain.py', '--method', 'x'],
            "there is no method 'x' for a classifier",
        ),
        (
            ['plain.py', 'good.pth', '--cfg-options', 'val_evaluator=None'],
            'has no val_evaluator',
        ),
    ],
)
def test_bad_input_is_named(arguments, message, capsys):
    assert check(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith('mmrkkd check-teacher: ') and message in error


# -- the rule ---------------------------------------------------------------


def test_what_is_useless():
    # Guessing among 4: 1 / 4 + 3 sqrt(1/4 3/4 / 48) = 0.25 + 0.1875.
    top1 = 'accuracy/top1'
    assert useless({top1: 43.75}, 48, 4).startswith('accuracy/top1 is 43.8 %')
    assert useless({top1: 43.8}, 48, 4) is None
    # Guessing among 2 may be right on all of 9 images: 1/2 + 3 1/2 / 3 = 1.
    for value in (0.0, 50.0, 100.0):
        assert useless({top1: value}, 9, 2) is None
    # On 10 it is not: 1/2 + 3 1/2 / sqrt(10) = 0.974.
    assert useless({top1: 90.0}, 10, 2).endswith('97.4 % on 10 images by luck')
    assert useless({top1: 100.0}, 10, 2) is None
    ap = 'coco/bbox_mAP'
    assert useless({ap: 0.009}, 50, 80) == f'{ap} is 0.90 of 100, below 1'
    assert useless({ap: 0.01}, 50, 80) is None
    assert useless({ap: math.nan}, 50, 80) == f'{ap} is not a number'
    # MMPretrain's is in percent.
    ap_of_images = 'multi-label/mAP'
    said = f'{ap_of_images} is 0.50 of 100, below 1'
    assert useless({ap_of_images: 0.5}, 50, 20) == said
    assert useless({ap_of_images: 1.5}, 50, 20) is None
    # COCO's -1: no object in the images.
    assert useless({ap: -1.0}, 50, 80) is None
    assert useless({'loss': 0.0}, 50, 80) is None
    # No metric at all: MMDetection's word for no box at all.
    assert useless({}, 50, 80, 0) == 'it finds no box at all in 50 images'
    assert useless({}, 50, 80, 1) is useless({}, 50, 80) is None
    assert useless({ap: 0.5}, 50, 80, 0) is None


def test_which_metric_decides():
    metrics = {'coco/bbox_mAP_50': 0.5, 'coco/bbox_mAP': 0.3}
    assert judged(metrics) == ('coco/bbox_mAP', 0.3)
    assert judged({'pascal_voc/mAP': 0.4})[0] == 'pascal_voc/mAP'
    assert judged({'f1': 1.0}) == (None, None)


class KnowsTheTruth(nn.Module):
    """A detector that gives back the annotations of a batch."""

    def val_step(self, batch):
        samples = copy.deepcopy(batch['data_samples'])
        for sample in samples:
            truth = sample.gt_instances
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes.tensor,
                labels=truth.labels,
                scores=torch.ones(len(truth)),
            )
        return samples


class FindsNothing(KnowsTheTruth):
    def val_step(self, batch):
        samples = super().val_step(batch)
        for sample in samples:
            sample.pred_instances = sample.pred_instances[:0]
        return samples


def test_images_that_were_left_out_are_not_missed_objects(tmp_path):
    make_demo_shapes(tmp_path, Recipe(train=24, val=24), progress=False)
    config = Config.fromfile(DEMO)
    config.val_dataloader.dataset.data_root = str(tmp_path)
    config.val_evaluator.ann_file = str(tmp_path / 'annotations' / 'val.json')
    with DefaultScope.overwrite_default_scope('mmdet'):
        scores = teacher_scores(KnowsTheTruth(), config, 5, progress=False)
        nothing = teacher_scores(FindsNothing(), config, 5, progress=False)
    assert scores.images == 5
    assert scores.metrics['coco/bbox_mAP'] == pytest.approx(1.0)
    assert scores.found > 0
    assert (nothing.metrics, nothing.found) == ({}, 0)
    assert useless({}, 5, 24, nothing.found) is not None


class FindsABox(nn.Module):
    def val_step(self, batch):
        samples = copy.deepcopy(batch['data_samples'])
        for sample in samples:
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor([[0.0, 0.0, 9.0, 9.0]]),
                labels=torch.tensor([0]),
                scores=torch.tensor([1.0]),
            )
        return samples


@pytest.mark.parametrize('teacher', [FindsNothing, FindsABox])
def test_images_without_any_object_score_nobody(tmp_path, teacher):
    make_demo_shapes(tmp_path, Recipe(train=24, val=24), progress=False)
    annotations = tmp_path / 'annotations' / 'val.json'
    content = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(dict(content, annotations=[])))
    config = Config.fromfile(DEMO)
    config.val_dataloader.dataset.data_root = str(tmp_path)
    config.val_evaluator.ann_file = str(annotations)
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        pytest.raises(ValueError) as error,
    ):
        teacher_scores(teacher(), config, 3, progress=False)
    text = str(error.value)
    assert text.startswith(
        'the teacher cannot be scored: the 3 validation images have no object '
        "of the classes ('red plain disc', "
    )
    assert text.endswith(
        '. Look at ann_file and metainfo.classes in val_dataloader, or take '
        "more images (--images; 'images' of CheckTeacherHook)"
    )


def test_objects_that_no_pipeline_loads_are_objects(tmp_path):
    """Whatever the metric is: here none that is known."""
    make_demo_shapes(tmp_path, Recipe(train=24, val=24), progress=False)
    config = Config.fromfile(DEMO)
    data = config.val_dataloader.dataset
    data.data_root = str(tmp_path)
    data.pipeline = [
        step for step in data.pipeline if step.type != 'LoadAnnotations'
    ]
    config.val_evaluator = dict(
        type='DumpDetResults', out_file_path=str(tmp_path / 'found.pkl')
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        scores = teacher_scores(FindsABox(), config, 3, progress=False)
    assert scores.images == 3 and scores.found is None


def test_boxes_get_the_students_numbers():
    from mmdet.structures import DetDataSample

    # The student knows two of the teacher's three classes, and background.
    chosen = ClassMap(student=(0, 1, 2), teacher=(2, 0, 3))
    sample = DetDataSample(
        pred_instances=InstanceData(
            labels=torch.tensor([2, 1, 0]),
            scores=torch.tensor([0.9, 0.8, 0.7]),
        )
    )
    _in_students_classes(sample, chosen, 3)
    assert sample.pred_instances.labels.tolist() == [0, 1]
    assert sample.pred_instances.scores.tolist() == pytest.approx([0.9, 0.7])


# -- the hook ---------------------------------------------------------------


def distilled(folder, checkpoint):
    return dict(
        type='mmrkkd.KDClassifier',
        student=classifier_config(),
        teacher=dict(
            config=str(folder / 'plain.py'),
            checkpoint=str(folder / checkpoint),
        ),
        losses=dict(type='mmrkkd.KDLoss'),
    )


class RandomState(Hook):
    """Notes it before the first step."""

    def before_train(self, runner):
        self.state = torch.get_rng_state()


def train(folder, checkpoint, name, hooks=()):
    config = Config.fromfile(folder / 'plain.py')
    config.model = distilled(folder, checkpoint)
    config.custom_hooks = list(hooks)
    config.train_cfg.max_epochs = 1
    config.work_dir, config.launcher = str(folder / name), 'none'
    config.experiment_name = name
    start = RandomState()
    with prepare_run(config) as runner:
        runner.register_hook(start, 'VERY_LOW')
        runner.train()
    return dict(runner.model.state_dict(), random=start.state)


HOOK = dict(type='mmrkkd.CheckTeacherHook', images=9)


def test_the_hook_stops_a_training_by_a_useless_teacher(folder):
    with pytest.raises(UselessTeacherError, match='random.pth.*is useless'):
        train(folder, 'random.pth', 'stopped', [HOOK])
    assert not list((folder / 'stopped').glob('*.pth'))


@pytest.mark.parametrize('checkpoint', ['good.pth', 'turned.pth'])
def test_the_hook_leaves_the_training_as_it_is(folder, checkpoint):
    hooked = train(folder, checkpoint, f'hooked_{checkpoint}', [HOOK])
    plain = train(folder, checkpoint, f'unhooked_{checkpoint}')
    for key, value in plain.items():
        assert torch.equal(hooked[key], value), key


@pytest.mark.parametrize('images', [0, 2.5, '50'])
def test_the_hook_refuses_what_is_no_number_of_images(images):
    with pytest.raises(ValueError, match='images must be a number >= 1'):
        CheckTeacherHook(images)


def test_the_hook_tells_a_teacher_without_a_box(folder, monkeypatch):
    """Of which MMDetection's metrics say nothing."""
    scores = TeacherScores({}, 9, CLASSES, found=0)
    monkeypatch.setattr(
        check_teacher, 'teacher_scores', lambda *args, **kwargs: scores
    )
    with pytest.raises(UselessTeacherError, match='finds no box at all in 9'):
        train(folder, 'good.pth', 'no_box', [HOOK])


def test_the_hook_needs_a_teacher(folder):
    config = Config.fromfile(folder / 'plain.py')
    config.custom_hooks = [HOOK]
    config.work_dir, config.launcher = str(folder / 'alone'), 'none'
    config.experiment_name = 'alone'
    with (
        pytest.raises(TypeError, match='needs a KDDetector or a KDClassifier'),
        prepare_run(config) as runner,
    ):
        runner.train()
