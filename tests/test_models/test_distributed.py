"""Two gloo processes on the CPU against one process."""

import copy
from dataclasses import dataclass
from datetime import timedelta
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import CLASSES, detector_config, free_port
from mmdet.testing import demo_mm_inputs
from mmengine.dataset import pseudo_collate
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_state_dict
from torch import nn
from torch.utils.data import DataLoader

from mmrkkd.distillers import KDDetector

# A collective call that the other process never makes is an error.
TIMEOUT = timedelta(seconds=300)


@dataclass
class Run:
    """What two processes train.

    Attributes:
        objects: Of each step: the number of objects in the image of rank 0,
            and of rank 1.
        lr: Learning rate.
        base: See :func:`detector_config`.
        rois: Of :class:`KDDetector`.
        task_weight: Of :class:`KDDetector`.
        synchronised: Converts batch norm to SyncBatchNorm.
        shifts_buffers: The buffers of both models differ between the ranks.
    """

    objects: tuple[tuple[int, int], ...] = ((0, 2),)
    lr: float = 0.1
    base: str = 'faster-rcnn'
    rois: str = 'all'
    task_weight: float = 1.0
    synchronised: bool = False
    shifts_buffers: bool = False


# Without a search for unused parameters DDP raises in the step after one
# that left a parameter out.
EMPTY = ((0, 2), (0, 0), (2, 0))
RUNS = dict(
    one_empty=Run(),
    alike=Run(objects=((3, 3),), task_weight=0.0),
    synchronised=Run(synchronised=True),
    buffers=Run(objects=((2, 2),), shifts_buffers=True),
    empty_faster=Run(EMPTY, lr=0.01),
    empty_foreground=Run(EMPTY, lr=0.01, rois='foreground'),
    empty_distilled_only=Run(
        EMPTY, lr=0.01, rois='foreground', task_weight=0.0
    ),
    empty_mask=Run(EMPTY, lr=0.01, base='mask-rcnn'),
    empty_cascade=Run(EMPTY, lr=0.01, base='cascade-rcnn', rois='foreground'),
)
EMPTY_RUNS = [name for name in RUNS if name.startswith('empty')]


def make_model(run):
    # Every proposal is scored and none is drawn at random, so that two
    # processes with an image each see what one with both sees.
    config = detector_config(run.base)
    stages = config.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.update(num=10_000, add_gt_as_proposals=True)
    config.train_cfg.rpn.sampler.num = 100_000
    # Batch statistics would differ between the two ways.
    config.backbone.norm_eval = True
    torch.manual_seed(0)
    model = KDDetector(
        student=copy.deepcopy(config),
        teacher=dict(config=config, allow_random_weights=True),
        losses=dict(type='mmrkkd.RankKDLoss', temperature=1.0),
        class_names=CLASSES,
        rois=run.rois,
        task_weight=run.task_weight,
    )
    # A teacher that is not the student's twin.
    for parameter in model.teacher.model.parameters():
        parameter.mul_(1.5)
    # norm_eval acts when train() is called, which is the runner's business.
    return model.train()


def optimizer_config(run):
    return dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=run.lr))


def make_batch(objects, *ranks):
    """The images of some ranks.

    Args:
        objects: Number of objects in the image of rank 0, and of rank 1.
        ranks: Those that the batch is for.
    """
    batch = demo_mm_inputs(
        2, [[3, 96, 128]] * 2, num_items=objects, num_classes=3, with_mask=True
    )
    return {
        key: [value[rank] for rank in ranks] for key, value in batch.items()
    }


def count_boxes(model, counts):
    """Notes how many boxes each loss of a first RoI stage is computed of."""
    head = model.student.roi_head.bbox_head
    head = head[0] if isinstance(head, nn.ModuleList) else head
    head.loss_cls.register_forward_pre_hook(
        lambda _, scores: counts.append(len(scores[0]))
    )


def shift_buffers(model, rank):
    for part in (model.student, model.teacher.model):
        for name, buffer in part.named_buffers():
            if name.endswith('running_mean'):
                buffer.add_(rank)


def synchronised_bn_on_a_cpu():
    """DDP refuses it, though with fixed statistics it does without a GPU."""
    return mock.patch.object(
        MMDistributedDataParallel, '_passing_sync_batchnorm_handle'
    )


def kinds(model):
    """Names, not classes, which the manager's threads would all import."""
    return {type(part).__name__ for part in model.modules()}


def train(run, rank):
    """A rank's part of a run: what was logged, and what came of it."""
    model, counts = make_model(run), []
    count_boxes(model, counts)
    if run.synchronised:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with synchronised_bn_on_a_cpu():
        parallel = MMDistributedDataParallel(
            model, broadcast_buffers=True, find_unused_parameters=False
        )
    if run.shifts_buffers:
        shift_buffers(model, rank)
    teacher = copy.deepcopy(model.teacher.model.state_dict())
    optimizer = build_optim_wrapper(parallel, optimizer_config(run))
    logged = [
        parallel.train_step(make_batch(objects, rank), optimizer)
        for objects in run.objects
    ]
    state = get_state_dict(parallel)
    return dict(
        steps=[
            {key: float(value.detach()) for key, value in terms.items()}
            for terms in logged
        ],
        boxes=counts,
        weights={key: value.clone() for key, value in state.items()},
        teacher_before=teacher,
        teacher_after=model.teacher.model.state_dict(),
        student_keys=set(model.student.state_dict()),
        learns=sum(part.requires_grad for part in model.student.parameters()),
        reduced=parallel._get_ddp_logging_data()['num_parameter_tensors'],
        names=[
            name
            for name, _ in (
                *parallel.named_parameters(),
                *parallel.named_buffers(),
            )
        ],
        kinds=kinds(model.student),
        teacher_kinds=kinds(model.teacher.model),
    )


def work(rank, world, port, results):
    init_default_scope('mmdet')
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=world,
        timeout=TIMEOUT,
    )
    for name, run in RUNS.items():
        results[name, rank] = train(run, rank)
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results():
    """Name of a run -> what each rank has of it."""
    with mp.Manager() as manager:
        shared = manager.dict()
        mp.spawn(work, (2, free_port(), shared), nprocs=2)
        return {name: [shared[name, 0], shared[name, 1]] for name in RUNS}


def alone(name, *ranks):
    """The terms and gradients of a run's first step in a single process.

    Args:
        name: Of the run.
        ranks: Those whose images it sees.
    """
    model = make_model(RUNS[name])
    data = model.data_preprocessor(
        make_batch(RUNS[name].objects[0], *ranks), True
    )
    total, log = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    return {key: value.item() for key, value in log.items()}, {
        name.removeprefix('student.'): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def check_step(name, results, gradients):
    """Both ranks made a step of SGD along the gradients."""
    before = make_model(RUNS[name]).state_dict()
    for key, gradient in gradients.items():
        for result in results[name]:
            moved = before[key] - result['weights'][key]
            torch.testing.assert_close(
                moved, RUNS[name].lr * gradient, rtol=1e-3, atol=1e-6
            )


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('mmdet_scope')]


@pytest.mark.parametrize('name', ['one_empty', 'synchronised'])
def test_no_term_is_lost_and_nothing_hangs(results, name):
    """Rank 1 has objects; rank 0 has an image without any."""
    for rank, result in enumerate(results[name]):
        log, _ = alone(name, rank)
        (terms,) = result['steps']
        assert set(terms) == set(log)
        assert terms['loss_kd'] > 0
        assert terms['loss_rank'] != 0
        for key, value in terms.items():
            assert value == pytest.approx(log[key], rel=1e-4), key


def test_the_step_is_that_of_the_mean_gradient(results):
    gradients = [alone('one_empty', rank)[1] for rank in (0, 1)]
    mean = {
        key: (gradients[0][key] + gradients[1][key]) / 2
        for key in gradients[0]
    }
    check_step('one_empty', results, mean)


def test_processes_stay_equal_and_hold_a_plain_student(results):
    for name in RUNS:
        first, second = (result['weights'] for result in results[name])
        assert set(first) == results[name][0]['student_keys']
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)


# -- the batch of all ranks --------------------------------------------------

# What a box head computes as a mean over the boxes of the batch. Those of the
# RPN are means over anchors, of which each image counts another number.
MEANS_OVER_BOXES = (
    'loss_cls',
    'loss_bbox',
    'loss_kd',
    'loss_rank',
    'kd/tau',
    'kd/top1_agreement',
    'kd/kl',
)


@pytest.mark.parametrize('name', ['alike', 'one_empty'])
def test_the_mean_weighted_by_boxes_is_that_of_the_whole_batch(results, name):
    """sum_r n_r m_r / sum_r n_r for ranks with n_r boxes and terms m_r."""
    whole, _ = alone(name, 0, 1)
    (first,), (second,) = (result['boxes'] for result in results[name])
    # Fifty proposals and the objects themselves, in each image.
    assert [first - 50, second - 50] == list(RUNS[name].objects[0])
    steps = [result['steps'][0] for result in results[name]]
    for key in MEANS_OVER_BOXES:
        mean = (first * steps[0][key] + second * steps[1][key]) / (
            first + second
        )
        assert mean == pytest.approx(whole[key], rel=1e-4), key


def test_as_many_boxes_on_each_rank_step_as_the_whole_batch(results):
    """Then all weigh the same, as DDP has it: here by distillation alone.

    This is the rule in training: a sampler draws 512 boxes of each image.
    """
    terms, gradients = alone('alike', 0, 1)
    assert terms['loss_kd'] > 0 and terms['loss_rank'] != 0
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    check_step('alike', results, gradients)


# -- images without boxes ----------------------------------------------------


@pytest.mark.parametrize('name', EMPTY_RUNS)
def test_ranks_without_boxes_do_not_stop_the_others(results, name):
    run = RUNS[name]
    prefix = 's0.' if run.base == 'cascade-rcnn' else ''
    for rank, result in enumerate(results[name]):
        keys = set(result['steps'][0])
        assert keys >= {prefix + 'loss_kd', prefix + 'loss_rank'}
        for objects, boxes, terms in zip(
            run.objects, result['boxes'], result['steps'], strict=True
        ):
            assert boxes == 50 + objects[rank]
            assert set(terms) == keys
            for key, value in terms.items():
                assert value == value and abs(value) < 1e6, (key, value)
            if run.rois == 'foreground':
                # No box counts, or those of the objects do.
                is_taught = terms[prefix + 'loss_kd'] > 0
                assert is_taught == (objects[rank] > 0)
            else:
                assert terms[prefix + 'loss_kd'] > 0


# -- what DDP and SyncBN see -------------------------------------------------


def test_the_teacher_is_not_reduced(results):
    for name in RUNS:
        for result in results[name]:
            assert result['reduced'] == result['learns'] > 0
            assert all(
                part.startswith('module.student.') for part in result['names']
            )


def test_the_teachers_buffers_are_not_broadcast(results):
    """The student's are, rank 0's; the teacher has other ones on each."""
    first, second = results['buffers']
    key = 'backbone.bn1.running_mean'
    before = make_model(RUNS['buffers'])
    assert torch.equal(first['weights'][key], before.state_dict()[key])
    assert torch.equal(second['weights'][key], first['weights'][key])
    own = before.teacher.model.state_dict()[key]
    assert torch.equal(first['teacher_after'][key], own)
    assert torch.equal(second['teacher_after'][key], own + 1)


def test_the_teacher_stays_as_it_was(results):
    for name in RUNS:
        for result in results[name]:
            before, after = result['teacher_before'], result['teacher_after']
            assert before.keys() == after.keys()
            for key, value in before.items():
                assert torch.equal(after[key], value), (name, key)


def test_synchronised_bn_leaves_the_teacher_alone(results):
    for result in results['synchronised']:
        assert 'SyncBatchNorm' in result['kinds']
        assert 'BatchNorm2d' not in result['kinds']
        assert 'SyncBatchNorm' not in result['teacher_kinds']
        assert 'BatchNorm2d' in result['teacher_kinds']


def make_runner(model, work_dir, **changes):
    images = make_batch((0, 3), 0, 1)
    items = [dict(zip(images, pair)) for pair in zip(*images.values())]
    loader = DataLoader(items, batch_size=2, collate_fn=pseudo_collate)
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=1),
        optim_wrapper=optimizer_config(Run(lr=0.01)),
        default_scope='mmdet',
        log_level='WARNING',
        experiment_name=work_dir.name,
        **changes,
    )


def test_the_runners_synchronised_bn_leaves_the_teacher_alone(
    one_process, tmp_path
):
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    with synchronised_bn_on_a_cpu():
        runner = make_runner(
            make_model(Run()),
            tmp_path / 'sync_bn',
            launcher='pytorch',
            cfg=dict(sync_bn='torch', model_wrapper_cfg=wrapper),
        )
    model = runner.model.module
    assert isinstance(model.student.backbone.bn1, nn.SyncBatchNorm)
    assert type(model.teacher.model.backbone.bn1) is nn.BatchNorm2d
    before = copy.deepcopy(model.teacher.model.state_dict())
    runner.train()
    assert runner.iter == 1
    for key, value in model.teacher.model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_teacher_with_synchronised_bn_serves_a_single_process(tmp_path):
    """A runner turns the student's back into plain BN, and sees no teacher."""
    model = make_model(Run())
    nn.SyncBatchNorm.convert_sync_batchnorm(model.student)
    nn.SyncBatchNorm.convert_sync_batchnorm(model.teacher.model)
    runner = make_runner(model, tmp_path / 'revert')
    assert 'SyncBatchNorm' not in kinds(runner.model.student)
    teacher = runner.model.teacher.model
    assert isinstance(teacher.backbone.bn1, nn.SyncBatchNorm)
    runner.train()
    assert runner.iter == 1
