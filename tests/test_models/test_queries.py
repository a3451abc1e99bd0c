"""Query heads: the teacher's queries answered by the student's."""

import copy

import pytest
import torch
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from small_dense_heads import halved_heads
from small_query_heads import (
    COMMON,
    FAMILIES,
    PANOPTIC,
    SPARSE,
    query_batch,
    query_config,
    query_distilled,
)

from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
RKKD = dict(type='mmrkkd.RankKDLoss')
KD = ('loss_binary_kd', 'loss_kd', 'loss_rank')
# Layers and stages that learn, of each small model.
LAYERS = {
    **dict.fromkeys(FAMILIES, ('d0.', '')),
    **dict.fromkeys(
        ('mask2former', 'mask2former_panoptic'), ('d0.', 'd1.', '')
    ),
    **dict.fromkeys(SPARSE, ('s0.', 's1.')),
}
# Sampling of features has no bfloat16 on the CPU.
WITHOUT_BFLOAT16 = (
    'queryinst',
    'sparse',
    'deformable',
    'dino',
    'ddq',
    'mask2former',
)


class Step:
    """A distilled detector of a family, after one step."""

    def __init__(self, family, **changes):
        self.family = family
        torch.manual_seed(0)
        self.model = MODELS.build(query_distilled(family, RKKD, **changes))
        # Some embeddings start with whatever lay in the memory.
        for model in (self.model.student, self.model.teacher.model):
            model.init_weights()
            tell_queries_apart(model)
        self.model.train()
        self.start = copy.deepcopy(self.model.student.state_dict())
        self.terms = self.run(self.model)

    def data(self):
        return self.model.data_preprocessor(query_batch(self.family), True)

    def run(self, model):
        torch.manual_seed(1)
        return model(**self.data(), mode='loss')

    def matches(self, **data):
        """What the reader makes of one forward."""
        model, data = self.model, data or self.data()
        with model.reader.tap(model.student) as taps:
            model.student(**data, mode='loss')
        return model.reader.read(
            taps,
            model.student,
            model.teacher.model,
            model.teacher_inputs(data['inputs'], data['data_samples']),
            data['data_samples'],
        )


def tell_queries_apart(model):
    """Gives class layers weights with which each query has its own scores."""
    for name, weight in model.named_parameters():
        is_class = 'cls' in name and 'fcs' not in name
        if weight.dim() > 1 and (is_class or 'mask_embed' in name):
            torch.nn.init.normal_(weight, std=0.5)


@pytest.fixture(
    scope='module',
    params=[
        name
        if name in (*COMMON, 'sparse_rcnn')
        else pytest.param(name, marks=pytest.mark.slow)
        for name in FAMILIES
    ],
)
def step(request):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return Step(request.param)


def distillation(step, terms=None):
    """The terms that distil, by name without the layer."""
    terms = terms or step.terms
    return {k: v for k, v in terms.items() if k.split('.')[-1] in KD}


def test_a_step_is_finite_in_every_layer(step):
    kd = distillation(step)
    assert len(kd) == 2 * len(LAYERS[step.family])
    for prefix in LAYERS[step.family]:
        assert f'{prefix}loss_rank' in kd
        assert f'{prefix}kd/tau' in step.terms
    for name, value in step.terms.items():
        assert torch.as_tensor(value).isfinite().all(), name


def test_task_losses_are_the_plain_students(step):
    student = ROOT_MODELS.build(query_config(step.family))
    # DDQ's decoder gets the head's branches at the first step.
    student.load_state_dict(step.start)
    plain = step.run(student.train())
    assert set(step.terms) > set(plain)
    for name, values in plain.items():
        ours = step.terms[name]
        if isinstance(values, list):
            values, ours = torch.stack(values), torch.stack(ours)
        assert torch.equal(values, ours), name


def test_gradient_of_the_distillation_alone(step):
    weights = [p for p in step.model.backbone.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        sum(distillation(step).values()),
        weights,
        retain_graph=True,
        allow_unused=True,
    )
    gradients = [each for each in gradients if each is not None]
    assert all(each.isfinite().all() for each in gradients)
    assert sum(each.abs().sum() for each in gradients) > 0
    teacher = step.model.teacher.model
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(m.training for m in teacher.modules())


def test_labels_are_found_by_value(step):
    assert step.model.reader.labels_from == 'by layer'
    matches = step.matches()
    # Every object is some query's: the divisor of the binary losses.
    objects = 8 if step.family in PANOPTIC else 6
    assert all(match.normalizer == objects for match in matches)
    classes = step.model.reader.scores(step.model.student).classes
    for match in matches:
        assert len(match.labels) == len(match.student_logits)
        assert match.labels.max() <= classes


@pytest.fixture
def twins(step):
    """Teacher and student with the same weights, without dropout."""
    teacher, student = step.model.teacher.model, step.model.student
    kept = copy.deepcopy(teacher.state_dict())
    weights = student.state_dict()
    teacher.load_state_dict({key: weights[key] for key in kept})
    student.eval()
    # What a detector does in training it decides by itself.
    student.training = True
    for name in ('bbox_head', 'decoder'):
        if hasattr(student, name):
            getattr(student, name).training = True
    yield step
    student.train()
    teacher.load_state_dict(kept)


def test_the_same_weights_give_the_same_logits(twins):
    for match in twins.matches():
        assert match.student_logits.requires_grad
        assert not match.teacher_logits.requires_grad
        assert len(match.student_logits) >= 2 * 16
        used = slice(None) if match.counts is None else match.counts
        difference = match.student_logits - match.teacher_logits
        scale = match.teacher_logits.abs().max().clamp(min=1)
        assert difference[used].abs().max() < 1e-5 * scale


def test_labels_are_found_under_autocast(step):
    if step.family.startswith(WITHOUT_BFLOAT16):
        pytest.skip('what samples the features has no bfloat16 on the CPU')
    with halved_heads(step.model):
        matches = step.matches()
    assert all(match.labels is not None for match in matches)


def test_no_tap_stays_behind(step):
    for module in step.model.student.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert 'forward_decoder' not in vars(module)
        assert '_bbox_forward' not in vars(module)
