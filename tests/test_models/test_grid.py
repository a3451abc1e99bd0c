"""Dense heads: the same cells for both, one student forward."""

import contextlib
import logging

import pytest
import small_dense_heads
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from small_dense_heads import (
    COMMON,
    FAMILIES,
    batch,
    copied,
    distilled,
    halved_heads,
)

from mmrkkd.distillers.inference.hardware import fast_dtype
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
RKKD = dict(type='mmrkkd.RankKDLoss')
KD_TERMS = ('loss_binary_kd', 'loss_kd', 'loss_rank')
BY_IMAGE = ('paa', 'pisa_retinanet', 'yolact')
# Their losses are called with other rows, or are no modules.
WITHOUT_LABELS = (
    'autoassign',
    'centernet',
    'centernet_update',
    'centripetalnet',
    'cornernet',
    'free_anchor',
    'pisa_ssd',
    'ssd',
    'ssdlite',
    'yolov3',
    'yolov3_mobilenet',
    'yolox',
)
# Deformable convolutions; AutoAssign's loss mixes types.
WITHOUT_BFLOAT16 = (
    'autoassign',
    'centripetalnet',
    'ddod',
    'dyhead',
    'ga_retinanet',
    'nas_fcos',
    'reppoints_grid',
    'reppoints_moment',
    'tood',
    'tood_anchors',
    'vfnet',
)
NEEDS = dict(boxinst='skimage', paa='sklearn')
# Nets so deep, or without norms, that PyTorch's own start overflows.
INITIALISED = ('centripetalnet', 'cornernet', 'pisa_ssd', 'ssd')


class Step:
    """A distilled detector of a family, after one step."""

    def __init__(self, family):
        self.family = family
        torch.manual_seed(0)
        self.model = MODELS.build(distilled(family, RKKD))
        if family in INITIALISED:
            with quiet():
                self.model.init_weights()
                self.model.teacher.model.init_weights()
        self.model.train()
        self.start = {
            key: value.clone()
            for key, value in self.model.student.state_dict().items()
        }
        self.terms = self.run()

    def run(self, model=None):
        model = model or self.model
        torch.manual_seed(1)
        tell_progress()
        data = self.model.data_preprocessor(batch(self.family), True)
        return model(**data, mode='loss')


def tell_progress():
    """What heads ask the running experiment for."""
    hub = MessageHub.get_current_instance()
    hub.update_info_dict(dict(epoch=0, iter=0))


@contextlib.contextmanager
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(
    scope='module',
    params=[
        name if name in COMMON else pytest.param(name, marks=pytest.mark.slow)
        for name in FAMILIES
    ],
)
def step(request):
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])

    with DefaultScope.overwrite_default_scope('mmdet'):
        return Step(request.param)


def tensors(losses):
    for name, value in losses.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        for item in values:
            yield name, item


def test_a_step_is_finite(step):
    kd = [name for name in KD_TERMS if name in step.terms]
    assert len(kd) == 2
    assert 'kd/tau' in step.terms
    for name, value in tensors(step.terms):
        assert torch.as_tensor(value).isfinite().all(), name


def test_task_losses_are_the_plain_students(step):
    student = ROOT_MODELS.build(small_dense_heads.dense_config(step.family))
    student.load_state_dict(step.start)
    plain = step.run(student.train())
    distilled_terms = dict(tensors(step.terms))
    for name, value in plain.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        tapped = step.terms[name]
        tapped = tapped if isinstance(tapped, (list, tuple)) else [tapped]
        assert len(values) == len(tapped)
        for one, other in zip(values, tapped):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert set(distilled_terms) > set(plain)


def test_gradient_of_the_distillation_alone(step):
    total = sum(step.terms[name] for name in KD_TERMS if name in step.terms)
    weights = [p for p in step.model.backbone.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        total, weights, retain_graph=True, allow_unused=True
    )
    gradients = [each for each in gradients if each is not None]
    assert all(each.isfinite().all() for each in gradients)
    assert sum(each.abs().sum() for each in gradients) > 0
    teacher = step.model.teacher.model
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(m.training for m in teacher.modules())


def test_labels_are_found_by_value(step):
    expected = 'by level'
    if step.family in BY_IMAGE:
        expected = 'by image'
    if step.family in WITHOUT_LABELS:
        expected = 'none'
    assert step.model.reader.labels_from == expected


def matches(step, autocast=False):
    """What the reader makes of one forward."""
    model = step.model
    tell_progress()
    data = model.data_preprocessor(batch(step.family), True)
    with halved_heads(model) if autocast else contextlib.nullcontext():
        with model.reader.tap(model.student) as taps:
            model.student(**data, mode='loss')
        return model.reader.read(
            taps,
            model.student,
            model.teacher.model,
            model.teacher_inputs(data['inputs'], data['data_samples']),
            data['data_samples'],
        )


@pytest.fixture
def twins(step):
    """Teacher and student with the same weights, both in eval mode."""
    teacher = step.model.teacher.model
    kept = copied(teacher.state_dict())
    teacher.load_state_dict(step.model.student.state_dict())
    step.model.student.eval()
    # Heads predict in eval mode, and compute no losses; what is inside them
    # stays in it.
    for name, part in step.model.student.named_children():
        if name.endswith('_head'):
            part.training = True
    yield step
    step.model.student.train()
    teacher.load_state_dict(kept)


def test_the_same_weights_give_the_same_logits(twins):
    (match,) = matches(twins)
    assert match.student_logits.requires_grad
    assert not match.teacher_logits.requires_grad
    difference = match.student_logits.detach() - match.teacher_logits
    assert len(difference) > 16
    assert difference.abs().max() < 1e-5


def test_labels_are_found_under_autocast(step):
    if step.family in WITHOUT_BFLOAT16:
        pytest.skip('a part of this head has no bfloat16 on the CPU')
    if step.family == 'cornernet' and not fast_dtype(torch.device('cpu')):
        pytest.skip('its head takes minutes where bfloat16 is emulated')
    (match,) = matches(step, autocast=True)
    assert (match.labels is None) == (step.family in WITHOUT_LABELS)


def test_no_hook_stays_behind(step):
    for module in step.model.student.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


@pytest.mark.parametrize('layer', ['bbox_head', 'bbox_head[0]'])
@pytest.mark.parametrize(
    'family,inside',
    [
        ('retinanet', r'bbox_head\.cls_convs\.\d'),
        ('yolox', r'bbox_head\.multi_level_cls_convs\.2'),
    ],
)
def test_a_whole_head_is_no_layer(family, inside, layer):
    losses = dict(type='mmrkkd.PKDLoss', student_layers=layer)
    message = f"layer 'bbox_head' is not run.* nested, .* such as {inside}"
    with DefaultScope.overwrite_default_scope('mmdet'):
        with pytest.raises(ValueError, match=message) as told:
            MODELS.build(distilled(family, losses))
        losses['student_layers'] = str(told.value).rpartition(' ')[2] + '[0]'
        MODELS.build(distilled(family, losses))
