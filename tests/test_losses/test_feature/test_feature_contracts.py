"""What every feature loss must keep."""

import copy
import inspect
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck

from mmrkkd.losses import LOSSES, Progress, build_loss, set_progress
from mmrkkd.losses.feature import FeatureLoss, FeaturePair

# Runs both models: test_fcfd.py has these contracts of it.
OF_MODELS = {'FCFDLoss'}
KINDS = {
    name: kind
    for name, kind in LOSSES.items()
    if issubclass(kind, FeatureLoss) and name not in OF_MODELS
}
STUDENT, TEACHER = (1, 4, 8, 8), (1, 6, 8, 8)
# Without anything learned: a student like its teacher has nothing to learn.
FREE = {'ATLoss', 'CATKDLoss', 'SPLoss', 'RKDLoss', 'PKDLoss', 'CWDLoss'}
OPTIONS = {'CRDLoss': dict(num_data=9, dim=8)}
# Learns of features of a fixed length.
ONE_SIZE = {'CRDLoss'}
# Layers see each other, count according to their depth, or are one.
UNEVEN = {'NORMLoss', 'OFDLoss', 'ReviewKDLoss'}
# Compares cells of one stride only.
ONE_STRIDE = {'FGFILoss'}
WEIGHTS = [
    (name, argument)
    for name, kind in KINDS.items()
    for argument in inspect.signature(kind).parameters
    if argument.endswith('weight')
]


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


def made(name, student=STUDENT, teacher=TEACHER, layers=1, **options):
    """A loss whose learned modules have begun to learn."""
    torch.manual_seed(0)
    names = [f'layer{number}' for number in range(layers)]
    loss = KINDS[name](
        student_layers=names, **OPTIONS.get(name, {}), **options
    )
    connect(loss, student, teacher, layers)
    generator = torch.Generator().manual_seed(1)
    for parameter in loss.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.1 * noise
    return loss


def connect(loss, student=STUDENT, teacher=TEACHER, layers=1):
    """As the distillers do; the teacher's channels are of a new BatchNorm."""
    loss.connect([student] * layers, [teacher] * layers)
    if loss.needs_statistics:
        channels = torch.zeros(teacher[1]), torch.ones(teacher[1])
        loss.take_statistics([channels] * layers)


def batch(student=STUDENT, teacher=TEACHER, images=4, dtype=torch.float32):
    """Features of images of 32 pixels, with an object or two in each."""
    generator = torch.Generator().manual_seed(2)
    maps = [
        torch.randn(images, *shape[1:], generator=generator).to(dtype)
        for shape in (student, teacher)
    ]
    boxes = torch.tensor([[4.0, 4, 20, 16], [10.0, 2, 18, 30]])
    samples = [
        SimpleNamespace(
            gt_instances=SimpleNamespace(bboxes=boxes[: 1 + number % 2]),
            metainfo=dict(img_shape=(32, 32), data_index=number, data_count=9),
            negatives=torch.tensor([7, 6, 8, 5]),
        )
        for number in range(images)
    ]
    return pair_of(*maps, samples)


def pair_of(student, teacher, samples):
    height, width = student.shape[2:]
    left, top = torch.meshgrid(
        4.0 * torch.arange(width), 4.0 * torch.arange(height), indexing='xy'
    )
    corners = torch.stack([left, top], -1)
    anchors = torch.cat([corners - 4, corners + 8], -1)[:, :, None]
    dtype = torch.promote_types(student.dtype, torch.float32)
    weights = [
        torch.linspace(-1, 1, 5 * value.shape[1]).view(5, -1).to(dtype)
        for value in (student, teacher)
    ]
    return FeaturePair(
        [student.requires_grad_()],
        [teacher],
        samples,
        (32, 32),
        [anchors],
        tuple(weights),
    )


def computed(loss, pair, seed=3):
    """The terms, the same ones each time: masks are drawn, banks move."""
    torch.manual_seed(seed)
    # New tensors: what was there belongs to the graph.
    held = [dict(module._buffers) for module in loss.modules()]
    for module in loss.modules():
        for key, value in module._buffers.items():
            module._buffers[key] = value.clone()
    terms = loss(pair)
    for module, buffers in zip(loss.modules(), held):
        module._buffers.update(buffers)
    return terms


def total(loss, pair):
    return sum(computed(loss, pair).values())


def learned(loss):
    """What learns of this loss: the way back to the head, of the task."""
    for key, parameter in loss.named_parameters():
        if key.startswith('residual.contract.'):
            assert parameter.grad is None
        else:
            yield key, parameter


def test_losses_are_found():
    assert {'FitNetLoss', 'ATLoss', 'ReviewKDLoss', 'FGDLoss'} <= set(KINDS)


def test_terms_are_named_scalars(name):
    terms = computed(made(name), batch())
    for key, value in terms.items():
        assert key.startswith(f'loss_{name[:-4].lower()}')
        assert value.shape == ()
        assert value.isfinite()
        assert value.requires_grad


def test_names_never_collide():
    keys = [key for name in KINDS for key in computed(made(name), batch())]
    assert len(keys) == len(set(keys))


def test_gradients_reach_student_and_connector_and_not_the_teacher(name):
    loss, pair = made(name), batch()
    pair.teacher[0].requires_grad_()
    total(loss, pair).backward()
    assert pair.student[0].grad.abs().sum() > 0
    assert pair.teacher[0].grad is None
    for key, parameter in learned(loss):
        assert parameter.grad is not None, key


def test_gradcheck(name):
    shapes = (1, 2, 3, 3), (1, 2, 3, 3)
    loss = made(name, *shapes).double()
    pair = batch(*shapes, images=3, dtype=torch.float64)

    # What a first batch settles, such as CRD's normalisation, is settled.
    loss(pair)

    def value(student):
        pair.student = [student]
        return total(loss, pair) / scale

    scale = total(loss, pair).item()
    assert gradcheck(value, (pair.student[0],))


def test_half_precision_is_computed_in_float32(name):
    loss, pair = made(name), batch(dtype=torch.bfloat16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = computed(loss, pair)
    wide = pair_of(
        pair.student[0].detach().float(), pair.teacher[0].float(), pair.samples
    )
    for key, value in computed(loss, wide).items():
        assert half[key].dtype == torch.float32
        torch.testing.assert_close(half[key], value)


@pytest.mark.parametrize('value', [0.0, 3.0])
def test_constant_maps_are_finite(name, value):
    pair = batch()
    pair.student = [torch.full((4, *STUDENT[1:]), value, requires_grad=True)]
    pair.teacher = [torch.full((4, *TEACHER[1:]), value)]
    loss = made(name)
    term = total(loss, pair)
    term.backward()
    assert term.isfinite()
    assert pair.student[0].grad.isfinite().all()
    for _, parameter in learned(loss):
        assert parameter.grad.isfinite().all()


def test_large_features_are_finite(name):
    pair = batch()
    pair.student = [(1e4 * pair.student[0]).detach().requires_grad_()]
    pair.teacher = [1e4 * pair.teacher[0]]
    term = total(made(name), pair)
    term.backward()
    assert term.isfinite()
    assert pair.student[0].grad.isfinite().all()


@pytest.mark.parametrize('name', sorted(FREE))
def test_a_student_like_its_teacher_has_nothing_to_learn(name):
    pair = batch(TEACHER, TEACHER)
    pair.teacher = [pair.student[0].detach().clone()]
    term = total(made(name, TEACHER), pair).item()
    assert term == pytest.approx(0, abs=1e-6)


def test_a_map_of_one_cell_teaches_or_is_refused(name):
    # An image of four pixels, and an object in it.
    shapes = (1, 4, 1, 1), (1, 6, 1, 1)
    pair, loss = batch(*shapes, images=8), made(name, *shapes)
    pair.input_shape = 4, 4
    if name in {'ATLoss', 'CWDLoss'}:
        message = (
            f"{name} compares the cells .* student_layers 'layer0' .* 1 x 1 "
            'cells of images of 4 x 4 pixels.*: name an earlier stage'
        )
        with pytest.raises(ValueError, match=message):
            total(loss, pair)
        return
    total(loss, pair).backward()
    assert pair.student[0].grad.abs().sum() > 0


def test_no_image_is_refused(name):
    with pytest.raises(ValueError, match=r'at least one, got \[0\] images'):
        made(name)(batch(images=0))


def test_unlike_numbers_of_images_are_refused(name):
    pair = batch()
    pair.teacher = [pair.teacher[0][:2]]
    with pytest.raises(ValueError, match=r'same images, .* got \[2, 4\]'):
        made(name)(pair)


@pytest.mark.parametrize('name', sorted(set(KINDS) - ONE_SIZE))
def test_maps_of_other_padding(name):
    loss, pair = made(name), batch((1, 4, 8, 9), (1, 6, 9, 8))
    term = total(loss, pair)
    term.backward()
    assert term.isfinite()
    assert pair.student[0].grad.abs().sum() > 0


@pytest.mark.parametrize('size', [4, 16])
def test_maps_of_another_stride(name, size):
    teacher = (1, 6, size, size)
    if name in ONE_STRIDE:
        with pytest.raises(ValueError, match='must have one stride'):
            made(name, STUDENT, teacher)
        return
    pair = batch(STUDENT, teacher)
    term = total(made(name, STUDENT, teacher), pair)
    term.backward()
    assert term.isfinite()
    assert pair.student[0].grad.abs().sum() > 0


@pytest.mark.parametrize('name', sorted(set(KINDS) - UNEVEN))
def test_layers_are_added_up(name):
    one, two = made(name), made(name, layers=2)
    state = one.state_dict()
    # What is learned for the second layer is what it is for the first.
    two.load_state_dict(
        {
            key: state[re.sub(r'^(\w+)\.1', r'\1.0', key)]
            for key in two.state_dict()
        }
    )
    pair = batch()
    double = replace(
        pair,
        student=2 * pair.student,
        teacher=2 * pair.teacher,
        anchors=2 * pair.anchors,
    )
    if name == 'MGDLoss':
        one.draw = two.draw = lambda student: torch.ones_like(student[:, :1])
    torch.testing.assert_close(total(two, double), 2 * total(one, pair))


@pytest.mark.parametrize(('name', 'argument'), WEIGHTS)
def test_every_weight_may_be_a_schedule(name, argument):
    ramp = {argument: dict(type='linear', stop=4.0, end=4)}
    loss, pair = made(name, **ramp), batch()
    values = []
    for epoch in (1, 2, 4):
        set_progress(loss, Progress(epoch=epoch))
        values.append(computed(loss, pair))
    changing = [key for key in values[0] if values[0][key] != values[1][key]]
    assert changing
    for key in changing:
        torch.testing.assert_close(values[1][key], 2 * values[0][key])
        torch.testing.assert_close(values[2][key], 4 * values[0][key])


def test_state_is_all_that_was_learned(name):
    loss, pair = made(name), batch()
    fresh = KINDS[name](student_layers='a', **OPTIONS.get(name, {}))
    connect(fresh)
    fresh.load_state_dict(loss.state_dict())
    torch.testing.assert_close(computed(fresh, pair), computed(loss, pair))


def test_a_copy_is_its_own(name):
    loss, pair = made(name), batch()
    twin = copy.deepcopy(loss)
    for parameter in twin.parameters():
        parameter.data += 1
    torch.testing.assert_close(
        computed(loss, pair), computed(made(name), pair)
    )


def test_configs_and_logs_know_it(name):
    options = OPTIONS.get(name, {})
    loss = build_loss(
        dict(type=f'mmrkkd.{name}', student_layers='neck[*]', **options)
    )
    text = repr(loss)
    assert 'neck[*] <- neck[*], loss_weight=' in text
    for option in set(inspect.signature(KINDS[name]).parameters):
        if not option.endswith('_layers') and option not in ('mask',):
            assert f'{option}=' in text or 'weight' in option, option


def test_a_loss_without_terms_says_what_it_lacks():
    loss = FeatureLoss('layer0')
    with pytest.raises(NotImplementedError, match=r'implement per_batch\(\)'):
        loss(batch())
