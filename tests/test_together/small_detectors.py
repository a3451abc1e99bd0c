"""Small distilled detectors and the runs that train them."""

import copy

import small_classifiers
import torch
from conftest import CLASSES, detector_config
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

RKKD = dict(
    type='mmrkkd.RankKDLoss', temperature=1.0, kd_weight=1.0, rank_weight=1.0
)
KD_TERMS = ('loss_kd', 'loss_rank', 'kd/tau', 'kd/top1_agreement', 'kd/kl')
STAGES = {'faster-rcnn': ('',), 'cascade-rcnn': ('s0.', 's1.', 's2.')}


def terms_of(base):
    """The log keys of distillation, of every RoI stage."""
    return {stage + term for stage in STAGES[base] for term in KD_TERMS}


def distilled(base='faster-rcnn', losses=RKKD, **changes):
    """The config of a detector with a teacher of random weights.

    Args:
        base: 'faster-rcnn' or 'cascade-rcnn'.
        losses: Of the distillation.
        changes: Merged into the student's config.
    """
    return dict(
        type='mmrkkd.KDDetector',
        student=detector_config(base, **changes),
        teacher=dict(
            config=detector_config(base),
            allow_random_weights=True,
            classes=CLASSES,
        ),
        losses=losses,
        class_names=CLASSES,
    )


def nothing_drawn(config):
    """Every proposal is scored: no box is sampled at random.

    Args:
        config: Of a plain detector with one RoI stage; changed in place.
    """
    config.train_cfg.rcnn.sampler.update(num=10_000, add_gt_as_proposals=True)
    config.train_cfg.rpn.sampler.num = 100_000
    return config


def sample(number, boxes=3):
    """An image of noise, wide or high, and boxes of three classes."""
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(number)
    height, width = (64, 96) if number % 2 else (96, 64)
    corners = torch.rand(boxes, 2, generator=generator) * 32
    sizes = 16 + torch.rand(boxes, 2, generator=generator) * 16
    objects = InstanceData(
        bboxes=torch.cat([corners, corners + sizes], 1),
        labels=torch.arange(boxes) % len(CLASSES),
    )
    shape = dict(img_shape=(height, width), ori_shape=(height, width))
    return dict(
        inputs=torch.randint(
            256,
            (3, height, width),
            dtype=torch.uint8,
            generator=generator,
        ),
        data_samples=DetDataSample(
            gt_instances=objects,
            ignored_instances=InstanceData(
                bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
            ),
            metainfo=dict(shape, img_id=number, scale_factor=(1.0, 1.0)),
        ),
    )


class Images(Dataset):
    """Twelve images; the fourth has no boxes."""

    metainfo = dict(classes=CLASSES)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return sample(index, boxes=0 if index == 3 else 3)


class Start(Hook):
    """Keeps the weights that a run starts from."""

    def before_train(self, runner):
        runner.start = copy.deepcopy(runner.model.state_dict())


def make_runner(model, work_dir, images=None, **changes):
    """A runner that sees two images in each step, in their order."""
    loader = dict(
        dataset=images or Images(),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=2,
        collate_fn=dict(type='pseudo_collate'),
    )
    defaults = dict(
        train_dataloader=loader,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_scope='mmdet',
    )
    runner = small_classifiers.make_runner(
        model, work_dir, **{**defaults, **changes}
    )
    runner.register_hook(Start())
    return runner


def finish(runner):
    """Runs; returns the runner, what was logged, and the checkpoint."""
    runner.train()
    path = f'{runner.work_dir}/iter_{runner.max_iters}.pth'
    return runner, runner.recorder.steps, torch.load(path, weights_only=False)


def train(*args, **changes):
    """Makes a runner of :func:`make_runner`, and runs it."""
    return finish(make_runner(*args, **changes))
