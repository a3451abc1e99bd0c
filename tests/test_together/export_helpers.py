"""Short distilled runs that are interrupted, and what they leave behind."""

import copy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, detector_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader, Runner
from small_classifiers import Images, classifier, make_runner
from small_classifiers import distilled as distilled_classifier
from torch import nn

from mmrkkd.checkpoint import use_safe_reader
from mmrkkd.datasets.demo_shapes import CLASSES, Recipe, make_demo_shapes

KINDS = dict(classifier='mmpretrain', detector='mmdet')
RKKD = dict(type='mmrkkd.RankKDLoss', temperature=2.0)
CTKD = dict(
    type='mmrkkd.RankKDLoss', kd=dict(type='mmrkkd.CTKDLoss', ramp=1.0)
)
EMA = dict(type='EMAHook', momentum=0.5)
METHODS = dict(rkkd=(RKKD, []), ctkd=(CTKD, []), ctkd_ema=(CTKD, [EMA]))
# Saved and validated after each second step; interrupted after the third.
INTERVAL, INTERRUPTED, STEPS = 2, 3, 4


def student_config(kind):
    """The student as its own config states it."""
    if kind == 'classifier':
        return classifier()
    # With batch norm that is trained, train mode differs from eval mode.
    student = detector_config(
        num_classes=len(CLASSES), backbone=dict(norm_eval=False)
    )
    # After two steps no score is high: keep every box for the validation.
    student.test_cfg.rcnn.score_thr = 0.0
    return student


def plain_student(kind):
    """What stock MMPretrain or MMDetection builds of the student's config."""
    with DefaultScope.overwrite_default_scope(KINDS[kind]):
        student = MODELS.build(student_config(kind))
    assert type(student).__module__.split('.')[0] == KINDS[kind]
    return student.eval()


class Interruption(Hook):
    """Somebody presses Ctrl-C between two checkpoints."""

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == INTERRUPTED:
            raise KeyboardInterrupt


def interrupted_run(kind, method, folder):
    """A distilled run that is interrupted and resumed.

    Returns:
        ``interrupted`` and ``finished``, the work directory as it was at
        both moments; ``model``, the distiller at the end; ``teachers``, the
        digests of the teacher's weights in both runs.
    """
    work_dir, interrupted = folder / 'run', folder / 'interrupted'
    with pytest.MonkeyPatch.context() as patch:
        # What the reader sets for its whole process is taken back.
        patch.setattr(
            CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes)
        )
        use_safe_reader()
        first = runner_of(kind, method, work_dir, 'first')
        first.register_hook(Interruption())
        with pytest.raises(KeyboardInterrupt):
            first.train()
        shutil.copytree(work_dir, interrupted)
        second = runner_of(
            kind,
            method,
            work_dir,
            'second',
            resume=True,
            load_from=f'{work_dir}/iter_{INTERVAL}.pth',
        )
        second.train()
    DefaultScope._instance_dict.clear()
    return SimpleNamespace(
        interrupted=interrupted,
        finished=work_dir,
        model=second.model.eval(),
        teachers={
            digest(weight)
            for runner in (first, second)
            for weight in runner.model.teacher.model.state_dict().values()
            if is_telling(weight)
        },
    )


def runner_of(kind, method, work_dir, name, **changes):
    """A runner of four steps that saves as tools/train.py has it do."""
    losses, hooks = copy.deepcopy(METHODS[method])
    saving = dict(
        type='mmrkkd.AtomicCheckpointHook',
        by_epoch=False,
        interval=INTERVAL,
        save_best='auto',
        published_keys=['meta', 'state_dict'],
    )
    changes.update(
        custom_hooks=[*hooks, dict(type='mmrkkd.RunStateHook')],
        experiment_name=f'{work_dir.parent.name}_{name}',
    )
    if kind == 'classifier':
        return classifier_runner(losses, work_dir, saving, changes)
    return detector_runner(losses, work_dir, saving, changes)


def classifier_runner(losses, work_dir, saving, changes):
    return make_runner(
        distilled_classifier(losses),
        work_dir,
        train_cfg=dict(by_epoch=False, max_iters=STEPS, val_interval=INTERVAL),
        default_hooks=dict(checkpoint=saving),
        val_dataloader=dict(
            dataset=Images(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=8,
            collate_fn=dict(type='default_collate'),
        ),
        val_cfg=dict(),
        val_evaluator=dict(type='Accuracy'),
        **changes,
    )


def detector_runner(losses, work_dir, saving, changes):
    data_root = work_dir.parent / 'data'
    if not data_root.exists():
        recipe = Recipe(train=len(CLASSES), val=len(CLASSES), size=64)
        make_demo_shapes(data_root, recipe, progress=False)
    config = Config.fromfile(ROOT / 'configs' / 'demo' / 'demo_shapes.py')
    for part in ('train', 'val'):
        loader = config[f'{part}_dataloader']
        loader.dataset.update(data_root=str(data_root), indices=4)
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    config.val_evaluator.ann_file = f'{data_root}/annotations/val.json'
    config.model = dict(
        type='mmrkkd.KDDetector',
        student=student_config('detector'),
        teacher=dict(
            config=student_config('detector'),
            allow_random_weights=True,
            classes=CLASSES,
        ),
        losses=losses,
    )
    config.train_cfg.update(max_iters=STEPS, val_interval=INTERVAL)
    for part in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        config.pop(part)
    config.param_scheduler = None
    config.default_hooks.checkpoint = saving
    config.work_dir = str(work_dir)
    config.log_level = 'WARNING'
    config.update(changes)
    config.visualizer.name = config.experiment_name
    return Runner.from_cfg(config)


def checkpoints(folder):
    """Name to path of what a run has saved."""
    return {path.name: path for path in sorted(Path(folder).glob('*.pth'))}


def read(path):
    return torch.load(path, map_location='cpu', weights_only=False)


# -- tensors, wherever they are --------------------------------------------


def tensors(value):
    """Every tensor in a file, at any depth, in attributes too."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
        yield from tensors(getattr(value, '_metadata', None))


def is_telling(tensor):
    """Weights that begin as all 0 or all 1 are alike in every model."""
    return tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any())


def digest(tensor):
    return tuple(tensor.shape), tensor.detach().contiguous().numpy().tobytes()


# -- what is exported ------------------------------------------------------


class Features(nn.Module):
    """The part of a two-stage detector in front of the boxes."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, images):
        features = self.detector.extract_feat(images)
        scores, boxes = self.detector.rpn_head(features)
        return (*features, *scores, *boxes)


class OnSamples(nn.Module):
    """A detector in mode 'tensor', which wants to know its images' sizes."""

    def __init__(self, detector, samples):
        super().__init__()
        self.detector, self.samples = detector, samples

    def forward(self, images):
        return self.detector(images, self.samples, mode='tensor')[0]


def parts(kind, student):
    """Name to what can be exported, and the shape of its input.

    Boxes are made, chosen and pooled between a detector's two parts. A new
    module is in train mode, to which the ONNX exporter returns at its end,
    the student with it: hence eval().
    """
    if kind == 'classifier':
        return dict(whole=(student, (2, 3, 32, 32)))
    return dict(
        features=(Features(student).eval(), (2, 3, 64, 96)),
        box_head=(student.roi_head.bbox_head, (6, 16, 7, 7)),
    )
