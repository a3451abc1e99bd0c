"""What else a detector's run may switch on, together with distillation."""

import pytest
import torch
from conftest import detector_config
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader
from mmengine.structures import InstanceData
from small_classifiers import assert_same_terms, trained_beside_ema
from small_detectors import (
    STAGES,
    Images,
    distilled,
    finish,
    make_runner,
    nothing_drawn,
    terms_of,
    train,
)
from torch.utils.data import Subset

from mmrkkd.checkpoint import use_safe_reader
from mmrkkd.engine.hooks import ChannelsLastHook, RunStateHook

BASES = tuple(STAGES)
# A rounding of 2**-24 in each of some thousand sums, as far as it is random,
# and what three steps make of it.
ROUNDING = 2**-16
FROZEN = tuple(
    f'backbone.{part}' for part in ('conv1', 'bn1', 'layer1', 'layer2')
)


pytestmark = pytest.mark.usefixtures('mmdet_scope')


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """Runs with nothing switched on, each kind of detector once."""
    runs = {}

    def run(base):
        if base not in runs:
            folder = tmp_path_factory.mktemp(f'plain_{base}') / 'run'
            runs[base] = train(distilled(base), folder)
        return runs[base]

    return run


def plain_student(state, base='faster-rcnn', **changes):
    """A student that was built without us, and loads a state strictly."""
    student = MODELS.build(detector_config(base, **changes))
    student.load_state_dict(state, strict=True)
    assert set(state) == set(student.state_dict())
    return student


def both_models(runner):
    return runner.model.student, runner.model.teacher.model


@pytest.mark.parametrize('base', BASES)
def test_a_plain_run_distils(plain, base):
    _, steps, saved = plain(base)
    plain_student(saved['state_dict'], base)
    for step in steps:
        assert set(step) >= terms_of(base)
        assert all(step[f'{stage}loss_kd'] > 0 for stage in STAGES[base])


@pytest.mark.parametrize('base', BASES)
def test_ema_is_the_average_of_plain_students(plain, tmp_path, base):
    _, steps, saved = train(
        distilled(base),
        tmp_path / 'run',
        custom_hooks=[EMAHook(momentum=0.5)],
    )
    assert steps == plain(base)[1]  # An average beside the run is no change.
    averaged, trained = saved['state_dict'], trained_beside_ema(saved)
    for state in (averaged, trained):
        plain_student(state, base)
    for key, value in plain(base)[2]['state_dict'].items():
        assert torch.equal(trained[key], value), key
    key = 'backbone.layer4.0.conv1.weight'
    assert not torch.equal(averaged[key], trained[key])


@pytest.mark.parametrize('base', BASES)
def test_checkpointed_activations_change_rounding_only(plain, tmp_path, base):
    with_cp = dict(with_cp=True)
    _, steps, saved = train(
        distilled(base, backbone=with_cp), tmp_path / 'run'
    )
    # Three gradients meet at a stage's output (the block's two branches and
    # the neck). They are added in another order, with and without us: the
    # terms of the first step are the same, later ones to the rounding.
    assert steps[0] == plain(base)[1][0]
    assert_same_terms(steps, plain(base)[1], ROUNDING)
    state = saved['state_dict']
    plain_student(state, base, backbone=with_cp)
    plain_student(state, base)


@pytest.mark.parametrize('base', BASES)
def test_frozen_stages_stay_and_the_rest_is_distilled(tmp_path, base):
    """By distillation alone: the detector's own losses weigh 0."""
    frozen = dict(frozen_stages=2, norm_eval=True)
    runner, steps, saved = train(
        dict(distilled(base, backbone=frozen), task_weight=0.0),
        tmp_path / 'run',
    )
    for step in steps:
        assert set(step) >= terms_of(base)
        assert step['loss'] == pytest.approx(
            sum(
                step[stage + term]
                for stage in STAGES[base]
                for term in ('loss_kd', 'loss_rank')
            )
        )
    state = saved['state_dict']
    plain_student(state, base, backbone=frozen)
    head = 'bbox_head' if base == 'faster-rcnn' else 'bbox_head.2'
    for key, value in runner.start.items():
        if key.startswith(FROZEN):
            assert torch.equal(state[key], value), key
    for key in (
        'backbone.layer3.0.conv1.weight',
        'backbone.layer4.1.bn2.bias',
        'neck.lateral_convs.0.conv.weight',
        f'roi_head.{head}.fc_cls.weight',
    ):
        assert not torch.equal(state[key], runner.start[key]), key


# -- compiled, channels last, half precision --------------------------------


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


@pytest.mark.slow
def test_compiled_backbones_keep_every_term(plain, tmp_path, dynamo):
    """Only the backbones: a whole step is compiled in 20 to 40 seconds."""
    runner = make_runner(distilled(), tmp_path / 'run')
    for model in both_models(runner):
        model.backbone.compile(backend='eager')
    _, steps, saved = finish(runner)
    assert dynamo['stats']['unique_graphs'] > 0
    assert_same_terms(steps, plain('faster-rcnn')[1], ROUNDING)
    plain_student(saved['state_dict'])


@pytest.mark.slow
def test_compiled_steps_keep_every_term(plain, tmp_path, dynamo):
    """Dynamo breaks the graph where boxes are sampled, and at NMS.

    The backend aot_eager takes the graphs that eager would be given.
    """
    runner, steps, saved = train(
        distilled(),
        tmp_path / 'run',
        cfg=dict(compile=dict(backend='aot_eager')),
    )
    assert hasattr(runner.model.train_step, '_torchdynamo_orig_callable')
    assert dynamo['stats']['unique_graphs'] > 0
    assert_same_terms(steps, plain('faster-rcnn')[1], ROUNDING)
    plain_student(saved['state_dict'])


@pytest.mark.parametrize('base', BASES)
def test_channels_last_changes_rounding_only(plain, tmp_path, base):
    """Though MMCV's RoI Align takes the memory of its input for contiguous."""
    runner = make_runner(
        distilled(base), tmp_path / 'run', custom_hooks=[ChannelsLastHook()]
    )
    seen = []

    def see(neck, features, outputs):
        seen.extend([*features[0], *outputs])

    for model in both_models(runner):
        model.neck.register_forward_hook(see)
    _, steps, saved = finish(runner)
    # Four levels of the backbone and five of the neck, of both models.
    assert len(seen) == 2 * 9 * len(steps)
    for features in seen:
        assert features.is_contiguous(memory_format=torch.channels_last)
    other, expected, _ = plain(base)
    assert list(runner.start) == list(other.start)
    for key, value in other.start.items():
        assert torch.equal(runner.start[key], value), key
    assert_same_terms(steps, expected, ROUNDING)
    plain_student(saved['state_dict'], base)


class FixedBoxes:
    """In place of the RPN's proposals: the same boxes at any precision."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        corners = torch.rand(40, 2, 2, generator=generator).sort(1)[0]
        self.boxes = 64 * corners.flatten(1)

    def __call__(self, *args, batch_img_metas, **kwargs):
        return [
            InstanceData(bboxes=self.boxes.clone()) for _ in batch_img_metas
        ]


def in_float32(extract):
    """A RoI extractor at full precision, whatever comes in."""
    return lambda features, rois: extract(
        [part.float() for part in features], rois
    )


def one_step_on_fixed_boxes(work_dir, **wrapper):
    model = distilled()
    nothing_drawn(model['student'])
    runner = make_runner(
        model,
        work_dir,
        steps=1,
        optim_wrapper=dict(wrapper, optimizer=dict(type='SGD', lr=0.01)),
    )
    for part in both_models(runner):
        part.rpn_head.predict_by_feat = FixedBoxes()
        extractor = part.roi_head.bbox_roi_extractor
        extractor.forward = in_float32(extractor.forward)
    return finish(runner)


def test_half_precision_by_the_wrapper_is_near(tmp_path):
    """With given boxes: on a CPU MMCV's operators take float32 only.

    Each layer rounds its two factors and its result, in the forward pass of
    both models: r = 3 sqrt(L) u for L layers, as the roundings do not all
    point the same way (test_half_steps.py).
    """
    _, (exact,), _ = one_step_on_fixed_boxes(tmp_path / 'float32')
    runner, (ours,), saved = one_step_on_fixed_boxes(
        tmp_path / 'half', type='mmrkkd.AutocastOptimWrapper', dtype='bfloat16'
    )
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    layers = sum(
        isinstance(part, kinds) for part in runner.model.student.modules()
    )
    rounding = 3 * layers**0.5 * torch.finfo(torch.bfloat16).eps / 2
    assert set(ours) == set(exact) >= terms_of('faster-rcnn')
    for name in ('loss_kd', 'loss_rank', 'kd/tau', 'loss_cls', 'loss'):
        error = abs(ours[name] / exact[name] - 1)
        assert 0 < error <= rounding, (name, error, rounding)
    student = plain_student(saved['state_dict'])
    for name, value in student.named_parameters():
        assert value.dtype == torch.float32 and value.isfinite().all(), name


# -- accumulated, clipped, interrupted ---------------------------------------


def one_update(work_dir, numbers, steps, **wrapper):
    """What one step of SGD takes from the weights, by name."""
    model = distilled(backbone=dict(norm_eval=True))
    nothing_drawn(model['student'])
    runner, logged, saved = train(
        model,
        work_dir,
        steps=steps,
        images=Subset(Images(), numbers),
        optim_wrapper=dict(wrapper, optimizer=dict(type='SGD', lr=1.0)),
    )
    assert all(step['loss_kd'] > 0 for step in logged)
    state = saved['state_dict']
    return {
        key: value - state[key]
        for key, value in runner.start.items()
        if value.is_floating_point()
    }


@pytest.fixture(scope='module')
def halves(tmp_path_factory):
    """The updates of two batches, each from the same start."""
    init_default_scope('mmdet')
    folder = tmp_path_factory.mktemp('halves')
    return [
        one_update(folder / str(pair[0]), pair, steps=1)
        for pair in ((0, 1), (2, 3))
    ]


@pytest.mark.parametrize('max_norm', [None, 0.5])
def test_two_accumulated_batches_step_as_their_mean(
    halves, tmp_path, max_norm
):
    """One batch has an image without boxes."""
    first, second = halves
    expected = {key: (first[key] + second[key]) / 2 for key in first}
    wrapper = dict(accumulative_counts=2)
    if max_norm is not None:
        norm = torch.cat([part.flatten() for part in expected.values()]).norm()
        assert norm > 2 * max_norm
        # PyTorch's clipping adds 1e-6 to the norm.
        shrunk = max_norm / (norm + 1e-6)
        expected = {key: shrunk * part for key, part in expected.items()}
        wrapper['clip_grad'] = dict(max_norm=max_norm)
    update = one_update(tmp_path / 'run', range(4), steps=2, **wrapper)
    assert update.keys() == expected.keys()
    for key, value in expected.items():
        # Weights of about 1 are rounded once in each of three updates; sums
        # of products in another order are off by roundings of the gradient.
        torch.testing.assert_close(
            update[key],
            value,
            rtol=0,
            atol=2**-22 + 2**-18 * float(value.abs().max()),
        )


class Killed(Hook):
    """Ends a run in the middle of a step."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch):
        if runner.iter == self.iteration:
            raise InterruptedError


def everything_at_once(work_dir, *hooks, **changes):
    model = distilled(
        'cascade-rcnn',
        losses=dict(
            type='mmrkkd.RankKDLoss',
            # The smallest move away from 0 shows; from 1 it is rounded off.
            kd=dict(type='CTKDLoss', ramp=1.0, theta=0.0),
            kd_weight=1.0,
            rank_weight=1.0,
        ),
        backbone=dict(frozen_stages=2, norm_eval=True, with_cp=True),
    )
    return make_runner(
        model,
        work_dir,
        steps=6,
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.01, momentum=0.9),
            accumulative_counts=2,
            clip_grad=dict(max_norm=1.0),
        ),
        param_scheduler=dict(
            type='LinearLR', start_factor=0.5, end=6, by_epoch=False
        ),
        default_hooks=dict(
            checkpoint=dict(
                type='mmrkkd.AtomicCheckpointHook', interval=2, by_epoch=False
            )
        ),
        custom_hooks=[EMAHook(momentum=0.1), RunStateHook(), *hooks],
        **changes,
    )


def to_go_on_with(saved):
    """What a checkpoint has for the next steps: name to tensor."""
    parts = dict(weights=saved['state_dict'], ema=saved['ema_state_dict'])
    parts['weights of losses'] = saved['distiller']
    (parts['ema of losses'],) = saved['distiller_ema']
    for number, state in saved['optimizer']['state'].items():
        parts[f'optimizer {number}'] = state
    parts['random'] = dict(torch=saved['random_state']['torch'])
    return {
        f'{part}: {key}': value
        for part, tensors in parts.items()
        for key, value in tensors.items()
    }


@pytest.mark.slow
def test_all_at_once_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    """A cascade with EMA, accumulation, clipping, frozen stages, with_cp."""
    monkeypatch.setattr(
        CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes)
    )
    use_safe_reader()
    runner, steps, saved = finish(everything_at_once(tmp_path / 'whole'))
    with pytest.raises(InterruptedError):
        everything_at_once(tmp_path / 'killed', Killed(5)).train()
    _, resumed_steps, resumed = finish(
        everything_at_once(
            tmp_path / 'resumed',
            resume=True,
            load_from=str(tmp_path / 'killed' / 'iter_4.pth'),
        )
    )
    assert resumed_steps == steps[4:]
    expected, ours = to_go_on_with(saved), to_go_on_with(resumed)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(ours[key], value), key
    # Each option was at work, or the run would show less than its name.
    averaged, trained = saved['state_dict'], trained_beside_ema(saved)
    for state in (averaged, trained):
        plain_student(state, 'cascade-rcnn')
        for key, value in runner.start.items():
            if key.startswith(FROZEN):
                assert torch.equal(state[key], value), key
    key = 'backbone.layer3.0.conv1.weight'
    assert not torch.equal(averaged[key], trained[key])
    assert not torch.equal(trained[key], runner.start[key])
    norms = saved['message_hub']['log_scalars']['train/grad_norm'].data[0]
    assert len(norms) == 3 and (norms > 1.0).all()
    assert expected['weights of losses: 0.kd.theta'] != 0
    for step in steps:
        for stage in STAGES['cascade-rcnn']:
            assert step[f'{stage}loss_ctkd'] > 0
            assert step[f'{stage}loss_rank'] != 0
