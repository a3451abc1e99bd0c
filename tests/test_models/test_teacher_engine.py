"""The teacher at the speed of inference says what it says in float32."""

import copy
import io
import logging
import sys
from pathlib import Path

import pytest
import torch
from conftest import CLASSES
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrkkd.distillers import FrozenTeacher, build_teacher
from mmrkkd.distillers.inference import TeacherEngine, check, engine, hardware
from mmrkkd.distillers.inference.check import Agreement
from mmrkkd.distillers.inference.parts import find_parts
from mmrkkd.distillers.inference.reduced import fold, foldable
from mmrkkd.distillers.inference.trace import LayerTrace
from mmrkkd.distillers.readers import Match
from mmrkkd.distillers.unused import (
    _zeros,
    unused_layers,
)
from mmrkkd.evaluation.teacher_scores import teacher_predictions
from mmrkkd.registry import MODELS

sys.path.append(str(Path(__file__).parents[1] / 'test_together'))

import small_classifiers
import small_dense_heads
import small_detectors

CROSS = dict(type='grid', cross_layer='cls_convs.2.activate')
CROSS_BOXES = dict(cross_box_layer='reg_convs.2.activate')
BINARY = dict(type='mmrkkd.BinaryKDLoss')
LD = dict(type='mmrkkd.LDLoss', temperature=1.0, locations='confidence')
CROSSED = {'loss_binary_kd', 'loss_ld'}
WEIGHTS = ('weight', 'bias')
CONV_AND_NORM = ('conv.weight', 'gn.weight', 'gn.bias')
BOX_TERMS = ('loss_ld', 'loss_box_giou')
# A path of the layer that makes the scores, and the config of each kind.
KINDS = {
    'two_stage': ('roi_head.bbox_head.fc_cls', 'mmdet'),
    'dense': ('bbox_head.retina_cls', 'mmdet'),
    'classifier': ('head.fc', 'mmpretrain'),
}


def config_of(kind, **changes):
    if kind == 'two_stage':
        return dict(small_detectors.distilled(), **changes)
    if kind == 'dense':
        return small_dense_heads.distilled('retinanet', BINARY, **changes)
    return small_classifiers.distilled(**changes)


def data_of(kind, model):
    return model.data_preprocessor(raw_data_of(kind, model), True)


def raw_data_of(kind, model):
    if kind == 'two_stage':
        items = [small_detectors.sample(number) for number in (0, 1)]
        data = {
            key: [item[key] for item in items]
            for key in ('inputs', 'data_samples')
        }
    elif kind == 'dense':
        data = small_dense_heads.batch()
    else:
        data = small_classifiers.batch()
        if any(loss.views == 2 for loss in model.distiller):
            data['inputs'] = [data['inputs'], data['inputs'].flip(-1)]
    return data


def built(kind='two_stage', precision='auto', seed=0, **changes):
    """A distiller whose teacher has statistics and scores as if trained."""
    layer, scope = KINDS[kind]
    with DefaultScope.overwrite_default_scope(scope):
        torch.manual_seed(seed)
        model = MODELS.build(config_of(kind, **changes))
        model.init_weights()
        model.train()
        calibrate(kind, model, layer)
        # Random weights stay float32 by themselves.
        model.teacher.engine = TeacherEngine(precision)
    return model


def calibrate(kind, model, layer):
    teacher = model.teacher.model
    norms = [m for m in teacher.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.training, norm.momentum = True, None
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    outputs = []
    scores = teacher.get_submodule(layer)
    handle = scores.register_forward_hook(
        lambda module, args, output: outputs.append(output.flatten())
    )
    step(kind, model)
    for norm in norms:
        norm.training = False
    outputs.clear()
    step(kind, model)
    handle.remove()
    # Classes stand apart, by more than eight channels' rounding.
    scores.weight.data *= 0.5 / torch.cat(outputs).std()
    channels = model.reader.scores(teacher).channels
    scores.bias.data = torch.arange(len(scores.bias)) % channels * 2.0


def step(kind, model, seed=1):
    """The teacher's logits of one step, and the step's terms."""
    seen = []
    read = model.reader.read

    def noted(*args):
        seen.append(read(*args))
        return seen[-1]

    model.reader.read = noted
    with DefaultScope.overwrite_default_scope(KINDS[kind][1]):
        torch.manual_seed(seed)
        terms = model(**data_of(kind, model), mode='loss')
    del model.reader.read
    return seen[-1], terms


def logits(kind, model):
    return torch.cat([m.teacher_logits for m in step(kind, model)[0]])


def bytes_of(model):
    return sum(
        value.nbytes for value in model.state_dict(keep_vars=True).values()
    )


@pytest.fixture
def fast(monkeypatch):
    """Hardware that is fast at bfloat16."""
    monkeypatch.setattr(engine, 'fast_dtype', lambda device: torch.bfloat16)


@pytest.fixture
def said(monkeypatch):
    """What the engine logs."""
    lines = []
    monkeypatch.setattr(
        engine,
        'print_log',
        lambda text, logger, level: lines.append((level, text)),
    )
    return lines


@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(6, 8, 3, bias=False),
        nn.Conv2d(6, 8, 3, groups=2, stride=2, padding=1),
    ],
    ids=['plain', 'grouped'],
)
@pytest.mark.parametrize('affine', [True, False])
def test_folded_equals_unfolded(conv, affine):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8, affine=affine)
    both = copy.deepcopy(nn.Sequential(conv, norm)).double()
    for _ in range(3):
        both(3 * torch.randn(4, 6, 9, 9).double() + 1)
    both.eval()
    images = torch.randn(2, 6, 9, 9).double()
    expected = both(images)
    fold(*both)
    torch.testing.assert_close(both(images), expected, rtol=0, atol=1e-12)
    assert all(value is None for value in both[1]._parameters.values())
    assert not both[1].state_dict()


@pytest.mark.parametrize('kind', KINDS)
def test_a_whole_teacher_folded_in_float64(kind):
    model = built(kind, 'float32')
    teacher = model.teacher.model.double()
    images = data_of(kind, model)['inputs'].double()
    parts, trace = find_parts(teacher), LayerTrace()
    with torch.no_grad():
        with trace.watching(parts.body, parts.heads):
            expected = teacher.extract_feat(images)
        pairs = foldable(trace.pairs(), ())
        norms = [
            module
            for part in parts.body
            for module in part.modules()
            if isinstance(module, _BatchNorm)
        ]
        assert {norm for _, norm in pairs} == set(norms)
        for pair in pairs:
            fold(*pair)
        folded = teacher.extract_feat(images)
    for one, other in zip(folded, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


class Shared(nn.Module):
    """One convolution for two levels, each with a norm of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(2), nn.BatchNorm2d(2)])

    def forward(self, images):
        return [norm(self.conv(images)) for norm in self.norms]


class Before(nn.Module):
    """A norm before the convolution, and one that sees a changed output."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
        self.second = nn.BatchNorm2d(2)

    def forward(self, images):
        return self.second(self.conv(self.norm(images)).relu_())


@pytest.mark.parametrize('kind', [Shared, Before])
def test_norms_that_cannot_be_folded_are_left(kind):
    model, trace = kind().eval(), LayerTrace()
    with trace.watching([model], []):
        model(torch.randn(1, 2, 3, 3))
    assert trace.pairs() == []


def test_standardised_convolutions_are_left():
    from mmcv.cnn.bricks.conv_ws import ConvWS2d

    model = nn.Sequential(ConvWS2d(2, 2, 1), nn.BatchNorm2d(2)).eval()
    trace = LayerTrace()
    with trace.watching([model], []):
        model(torch.randn(1, 2, 3, 3))
    assert trace.pairs() == []


@pytest.mark.parametrize('kind', KINDS)
def test_auto_takes_bfloat16_where_the_logits_stay(kind, fast, said):
    exact = logits(kind, built(kind, 'float32'))
    model = built(kind)
    before = bytes_of(model.teacher.model)
    found = logits(kind, model)
    assert model.teacher.engine.running == 'bfloat16', said
    assert found.dtype == torch.float32 and not found.requires_grad
    # 5 % of the logits' spread is what the limits stand for.
    assert (found - exact).std() < 0.05 * exact.std()
    assert 'tau' in said[0][1] and said[0][0] == logging.INFO
    # Replaced weights are freed: of the body half of the bytes stay.
    body = find_parts(model.teacher.model).body
    assert {p.dtype for part in body for p in part.parameters()} == {
        torch.bfloat16
    }
    assert bytes_of(model.teacher.model) < 0.7 * before
    assert not any(module.training for module in model.teacher.model.modules())


def test_the_body_takes_the_same_weights_whoever_asks_again(fast):
    model = built()
    first = logits('two_stage', model)
    weight = model.teacher.model.backbone.conv1.weight
    assert torch.equal(logits('two_stage', model), first)
    assert model.teacher.model.backbone.conv1.weight is weight


def test_float32_changes_nothing():
    model = built(precision='float32')
    teacher = model.teacher.model
    before = {key: id(value) for key, value in teacher.named_parameters()}
    assert model.teacher.engine.settled
    step('two_stage', model)
    assert before == {
        key: id(value) for key, value in teacher.named_parameters()
    }
    assert not any('forward' in vars(part) for part in teacher.modules())


def test_auto_refuses_where_the_ranking_is_sensitive(fast, said):
    def flat(model):
        # Classes apart by less than what rounding adds.
        layer = model.teacher.model.roi_head.bbox_head.fc_cls
        layer.weight.data[:] = layer.weight.data[:1] * 100
        layer.weight.data += 1e-3 * torch.randn(
            layer.weight.shape, generator=torch.Generator().manual_seed(0)
        )
        layer.bias.data.zero_()
        return model

    model = flat(built())
    found, terms = step('two_stage', model)
    _, expected = step('two_stage', flat(built(precision='float32')))
    assert model.teacher.engine.running == 'float32'
    assert model.teacher.engine.settled
    assert 'stays float32, not bfloat16: tau' in said[-1][1]
    assert said[-1][0] == logging.WARNING
    assert float(terms['loss_kd']) == float(expected['loss_kd'])
    assert found[0].teacher_logits.dtype == torch.float32


def sensitive():
    """Whose classes are apart by less than what bfloat16 rounds."""
    model = built()
    layer = model.teacher.model.roi_head.bbox_head.fc_cls
    layer.weight.data[:] = layer.weight.data[:1] * 100
    layer.bias.data.zero_()
    return model


def test_a_resumed_run_keeps_what_auto_has_chosen(fast, said, monkeypatch):
    decisions = []
    for model in (built(), sensitive()):
        assert model.teacher.engine.decision is None
        step('two_stage', model)
        decisions.append(model.teacher.engine.decision)
    taken, refused = decisions
    assert taken == dict(precision='bfloat16', heads=True, autocast=False)
    assert refused == dict(precision='float32')
    # Each on the other, whose first batch says otherwise.
    for model, decision in ((sensitive(), taken), (built(), refused)):
        model.teacher.engine.follow(decision)
        step('two_stage', model)
        assert model.teacher.engine.decision == decision
    assert 'as in the run that is resumed' in said[-1][1]
    # What is stated is not chosen.
    model = built(precision='bfloat16')
    model.teacher.engine.follow(refused)
    step('two_stage', model)
    assert model.teacher.engine.running == 'bfloat16'
    assert model.teacher.engine.decision is None
    # Nor does slow hardware follow.
    monkeypatch.setattr(engine, 'fast_dtype', lambda device: None)
    model = built()
    model.teacher.engine.follow(taken)
    step('two_stage', model)
    assert model.teacher.engine.running == 'float32'


def test_stated_bfloat16_stays_and_warns(said):
    model = built(precision='bfloat16')
    layer = model.teacher.model.roi_head.bbox_head.fc_cls
    layer.weight.data *= 1000
    step('two_stage', model)
    assert model.teacher.engine.running == 'bfloat16'
    level, text = said[-1]
    assert level == logging.WARNING and 'runs in bfloat16' in text


def test_a_layer_without_the_precision_keeps_float32(fast, said):
    class Exact(nn.Module):
        def forward(self, images):
            if images.dtype == torch.bfloat16:
                raise RuntimeError('"exact" not implemented for BFloat16')
            return images

    model = built()
    expected = logits('two_stage', model_with(Exact(), built('two_stage')))
    model_with(Exact(), model)
    model.teacher.model.backbone.layer1.append(Exact())
    assert torch.equal(logits('two_stage', model), expected)
    assert model.teacher.engine.running == 'float32'
    level, text = said[-1]
    assert level == logging.WARNING
    assert 'RuntimeError: "exact" not implemented for BFloat16' in text


def model_with(layer, model):
    model.teacher.model.backbone.layer1.append(layer)
    return model


def test_mixed_operands_run_under_autocast(fast, said):
    class Mixed(nn.Module):
        """As the masks of shifted windows: float32 made inside."""

        def forward(self, images):
            first = images.flatten(2) + torch.zeros(1)
            return first.bmm(first.to(images.dtype).mT).sum() * 0 + images

    model = model_with(Mixed(), built())
    step('two_stage', model)
    assert model.teacher.engine.running == 'bfloat16', said
    assert 'with autocast' in said[-1][1]


def test_slow_hardware_keeps_float32(monkeypatch, said):
    monkeypatch.setattr(engine, 'fast_dtype', lambda device: None)
    model = built()
    expected = logits('two_stage', built(precision='float32'))
    assert torch.equal(logits('two_stage', model), expected)
    assert 'stays float32: cpu is not fast' in said[-1][1]


def test_a_teacher_without_a_backbone_keeps_float32(fast, said):
    teacher = FrozenTeacher(nn.Linear(2, 2), engine=TeacherEngine('auto'))
    teacher.engine.settle(teacher.model, list, 'softmax')
    assert teacher.engine.settled
    assert 'has no backbone' in said[-1][1]
    assert teacher.begin([torch.zeros(1, 2)]) is None


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [
        ('fpu avx512f avx512_bf16', torch.bfloat16),
        ('fpu amx_bf16', torch.bfloat16),
        ('fpu avx512f', None),
    ],
)
def test_processors_that_multiply_bfloat16(
    flags, expected, monkeypatch, tmp_path
):
    path = tmp_path / 'cpuinfo'
    path.write_text(f'processor\t: 0\nflags\t\t: {flags}\n')
    monkeypatch.setattr(hardware, 'CPU_INFO', path)
    hardware._cpu_flags.cache_clear()
    try:
        assert hardware.fast_dtype(torch.device('cpu')) == expected
    finally:
        hardware._cpu_flags.cache_clear()


# What the student's features pass in the teacher's head.
PASSED = {
    *(f'cls_convs.3.{name}' for name in CONV_AND_NORM),
    *(f'gfl_cls.{name}' for name in WEIGHTS),
}
PASSED_BY_BOXES = {
    *(f'reg_convs.3.{name}' for name in CONV_AND_NORM),
    *(f'gfl_reg.{name}' for name in WEIGHTS),
    *(f'scales.{level}.scale' for level in range(5)),
}


def crossed_step(losses, matching, precision, autocast=False, family='gfl'):
    """A detector taught by one of a precision, and the losses of its step."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(
            small_dense_heads.distilled(family, losses, matching=matching)
        ).train()
        model.teacher.engine = TeacherEngine(precision)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            terms = model(**data_of('dense', model), mode='loss')
    sum(terms[key] for key in terms if key in CROSSED).backward()
    return model, terms


@pytest.mark.parametrize('boxes', [False, True])
def test_a_head_is_reduced_up_to_where_it_is_crossed(boxes, fast, said):
    losses = [BINARY, LD] if boxes else BINARY
    matching = dict(CROSS, **(CROSS_BOXES if boxes else {}))
    model, terms = crossed_step(losses, matching, 'bfloat16')
    teacher, student = model.teacher.model, model.student
    assert 'neck and heads, up to the crossing layer)' in said[-1][1]
    assert {
        name
        for name, each in teacher.bbox_head.named_parameters()
        if each.dtype == torch.float32
    } == (PASSED | PASSED_BY_BOXES if boxes else PASSED)
    assert all(p.grad is None for p in teacher.parameters())
    # Where boxes are not crossed they are read by nobody.
    skipped = {f'reg_convs.{place}.conv' for place in range(4)} | {'gfl_reg'}
    assert _skipped(teacher.bbox_head) == (set() if boxes else skipped)
    # The same pull as that of the teacher in float32, but for the rounding
    # of its targets.
    exact, expected = crossed_step(losses, matching, 'float32')
    for key in CROSSED & terms.keys():
        torch.testing.assert_close(
            terms[key], expected[key], rtol=0.01, atol=0
        )
    own, other = (
        torch.cat([each.grad.flatten() for each in tower.parameters()])
        for tower in (
            student.bbox_head.cls_convs[:3],
            exact.student.bbox_head.cls_convs[:3],
        )
    )
    assert torch.cosine_similarity(own, other, dim=0) > 0.98


def test_beside_boxes_that_are_not_crossed_the_head_keeps_float32(fast, said):
    """A loss reads them, and no layer of the scores is on their way."""
    model, _ = crossed_step([BINARY, LD], CROSS, 'bfloat16')
    head = model.teacher.model.bbox_head
    assert 'runs in bfloat16 (backbone, neck); against' in said[-1][1]
    assert {p.dtype for p in head.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ('family', 'layer', 'objectness', 'unfolded'),
    [
        (
            'yolox',
            'multi_level_cls_convs.*.0.activate',
            'multi_level_conv_obj.1',
            {f'multi_level_cls_convs.{level}.1.bn' for level in range(3)},
        ),
        ('autoassign', 'cls_convs.1.activate', 'conv_centerness', set()),
    ],
)
def test_an_objectness_beside_the_crossing_is_not_rounded(
    family, layer, objectness, unfolded, fast, said
):
    """It is a factor of the scores; norms before the crossing are folded."""
    matching = dict(type='grid', cross_layer=layer)
    model, _ = crossed_step(BINARY, matching, 'bfloat16', family=family)
    head = model.teacher.model.bbox_head
    assert 'heads, up to the crossing layer)' in said[-1][1]
    assert head.get_submodule(objectness).weight.dtype == torch.float32
    assert {
        name
        for name, layer in head.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    } == unfolded


def test_under_autocast_a_head_that_is_crossed_stays_as_it_is(fast, said):
    model, _ = crossed_step(BINARY, CROSS, 'bfloat16', autocast=True)
    teacher = model.teacher.model
    assert 'runs in bfloat16 (backbone, neck); against' in said[-1][1]
    assert teacher.backbone.conv1.weight.dtype == torch.bfloat16
    assert {p.dtype for p in teacher.bbox_head.parameters()} == {torch.float32}
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0


def test_a_followed_plan_leaves_out_heads_that_must_stay(fast, said):
    """As where mixed precision is switched on in the resumed run."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        config = small_dense_heads.distilled('gfl', BINARY, matching=CROSS)
        model = MODELS.build(config).train()
        model.teacher.engine = TeacherEngine('auto')
        model.teacher.engine.follow(
            dict(precision='bfloat16', heads=True, autocast=False)
        )
        with torch.autocast('cpu', torch.bfloat16):
            model(**data_of('dense', model), mode='loss')
    assert 'runs in bfloat16 (backbone, neck); against' in said[-1][1]
    assert model.teacher.engine.decision['heads'] is False


def _skipped(head):
    return {
        name
        for name, layer in head.named_modules()
        if getattr(vars(layer).get('forward'), 'func', None) is _zeros
    }


@pytest.mark.parametrize('family', ['retinanet', 'gfl', 'yolox'])
def test_the_box_branch_of_a_dense_teacher_is_not_run(family):
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(small_dense_heads.distilled(family, BINARY))
        model.train()
        model.teacher.engine = TeacherEngine('bfloat16')
        step('dense', model)
    skipped = _skipped(model.teacher.model.bbox_head)
    assert skipped
    assert all('reg' in name for name in skipped)
    assert model.teacher.engine.running == 'bfloat16'


@pytest.mark.parametrize(
    'family', ['retinanet', 'gfl', 'fcos', 'atss', 'yolox', 'two_stage']
)
def test_a_teacher_whose_boxes_no_loss_reads_predicts_them(family):
    """As well after a step, in bfloat16, as before it."""
    if family == 'two_stage':
        kind, model = family, built(precision='float32')
    else:
        kind = 'dense'
        with DefaultScope.overwrite_default_scope('mmdet'):
            torch.manual_seed(0)
            model = MODELS.build(small_dense_heads.distilled(family, BINARY))
    teacher = model.teacher.model
    for name, value in teacher.named_parameters():
        if 'reg' in name and value.dim() > 1:
            nn.init.normal_(value, std=0.05)
    seen = []

    def decoded():
        # The outputs of the box layers: what NMS keeps may change.
        seen.clear()
        layers = [
            layer
            for name, layer in teacher.named_modules()
            if name.startswith(('bbox_head', 'roi_head'))
            and isinstance(layer, (nn.Conv2d, nn.Linear))
            and 'reg' in name
        ]
        handles = [
            layer.register_forward_hook(lambda *call: seen.append(call[-1]))
            for layer in layers
        ]
        batch = raw_data_of(kind, model)
        with DefaultScope.overwrite_default_scope('mmdet'):
            list(teacher_predictions(model, [batch], None))
        for handle in handles:
            handle.remove()
        return [each.float() for each in seen]

    before = decoded()
    model.train()
    model.teacher.engine = TeacherEngine('bfloat16')
    with DefaultScope.overwrite_default_scope('mmdet'):
        step(kind, model)
    assert model.teacher.engine.running == 'bfloat16'
    after = decoded()
    assert any(
        getattr(vars(layer).get('forward'), 'func', None) is _zeros
        for layer in teacher.modules()
    )
    if kind == 'two_stage':
        # Whose proposals need not be the same ones.
        assert all(each.std() > 0 for each in after)
        return
    assert len(before) == len(after) > 0
    for one, other in zip(before, after, strict=True):
        if one.shape[-1] == 1:
            # A norm of groups makes noise of a single cell.
            continue
        assert one.std() > 0
        assert (one - other).abs().mean() < 0.1 * one.std()


@pytest.mark.parametrize(
    ('family', 'loss', 'field'),
    [
        ('gfl', 'LDLoss', 'bins'),
        ('gfl', 'BoxGIoULoss', 'boxes'),
        ('retinanet', 'BoxGIoULoss', 'boxes'),
    ],
)
def test_a_box_branch_that_a_loss_reads_is_run(family, loss, field):
    """Its backbone in bfloat16, it says what it says in float32."""
    losses = dict(type=f'mmrkkd.{loss}')
    found, terms = [], []
    for precision in ('float32', 'bfloat16'):
        with DefaultScope.overwrite_default_scope('mmdet'):
            torch.manual_seed(0)
            model = MODELS.build(small_dense_heads.distilled(family, losses))
            model.train()
            for name, value in model.teacher.model.named_parameters():
                if 'reg' in name and value.dim() > 1:
                    nn.init.normal_(value, std=0.1)
            model.teacher.engine = TeacherEngine(precision)
            matches, log = step('dense', model)
        assert model.teacher.engine.running == precision
        found.append(getattr(matches[-1], field)[1])
        (term,) = (v for k, v in log.items() if k in BOX_TERMS)
        terms.append(term)
    exact, reduced = found
    assert exact.std() > 0
    # bfloat16 keeps eight bits, and a teacher has tens of layers.
    assert (reduced - exact).abs().mean() < 0.1 * exact.std()
    torch.testing.assert_close(*terms, rtol=0.1, atol=0)


class Detached(nn.Module):
    """Scores that a branch reaches without gradient, and one without any."""

    def __init__(self):
        super().__init__()
        self.scores, self.offsets, self.boxes = (
            nn.Linear(2, 2) for _ in range(3)
        )

    def forward(self, values, tied):
        scores = self.scores(values)
        if tied:
            scores = scores + self.offsets(values).detach()
        return scores, self.boxes(values)


@pytest.mark.parametrize('tied', [True, False])
def test_what_reaches_the_scores_without_gradient_is_run(tied):
    torch.manual_seed(0)
    head = Detached().requires_grad_(False)
    found = unused_layers(
        head, lambda inputs: [head(*inputs, tied)[0]], [torch.randn(3, 2)]
    )
    # Of the two branches that gradient does not reach one is needed: both
    # are run.
    assert found == (set() if tied else {head.boxes})
    assert not any('forward' in vars(layer) for layer in head.modules())


def test_copies_and_files_compute_alike(fast):
    model = built()
    average = ExponentialMovingAverage(model)
    expected = logits('two_stage', model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits('two_stage', twin), expected)
    file = io.BytesIO()
    torch.save(model.teacher, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    images = data_of('two_stage', model)['inputs']
    for one, other in zip(
        loaded.model.extract_feat(images),
        model.teacher.model.extract_feat(images),
        strict=True,
    ):
        assert torch.equal(one, other)
    # What was copied before is as it was, and decides for itself.
    early = average.module.teacher
    assert not early.engine.settled
    assert early.model.backbone.conv1.weight.dtype == torch.float32
    moved = copy.deepcopy(model).double()
    assert moved.teacher.model.extract_feat(images.double())[0].dtype == (
        torch.float64
    )


def test_a_teacher_moved_to_float64_stays_there(fast, said):
    model = built('classifier').double()
    data = data_of('classifier', model)
    data['inputs'] = data['inputs'].double()
    model(**data, mode='loss')
    assert 'stays torch.float64' in said[-1][1]


@pytest.mark.parametrize('layer', ['backbone.conv1', 'backbone.bn1'])
def test_feature_losses_read_what_the_float32_teacher_has(layer):
    losses = [
        dict(
            type='mmrkkd.FitNetLoss',
            student_layers=[layer],
            teacher_layers=[layer],
        ),
        small_detectors.RKKD,
    ]
    found = {}
    for precision in ('float32', 'bfloat16'):
        model = built(precision=precision, losses=losses)
        seen = []
        loss = model.distiller[0]
        loss.register_forward_pre_hook(
            lambda module, args, seen=seen: seen.append(args[0].teacher[0])
        )
        step('two_stage', model)
        found[precision] = seen[-1].float()
        assert model.teacher.engine.running == precision
    difference = found['bfloat16'] - found['float32']
    # One convolution of bfloat16 values: 2**-8 of each, partly averaged out.
    assert difference.std() < 0.01 * found['float32'].std()


def test_both_views_in_one_pass(fast):
    losses = dict(type='mmrkkd.RankKDLoss', kd=dict(type='mmrkkd.MLKDLoss'))
    calls = {}
    for precision in ('float32', 'auto'):
        model = built('classifier', precision, losses=losses)
        step('classifier', model)
        images = []
        model.teacher.model.backbone.register_forward_pre_hook(
            lambda module, args, images=images: images.append(len(args[0]))
        )
        step('classifier', model)
        calls[precision] = images
    assert calls == dict(float32=[8, 8], auto=[16])


def test_the_teacher_draws_no_numbers(fast):
    model = built()
    step('two_stage', model)
    images = data_of('two_stage', model)['inputs']
    state = torch.random.get_rng_state()
    model.teacher.begin([images])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_nothing_is_decided_without_a_row(fast):
    teacher = built('classifier').teacher
    teacher = FrozenTeacher(teacher.model, engine=TeacherEngine('auto'))
    nothing = torch.zeros(0, len(CLASSES))
    teacher.engine.settle(
        teacher.model, lambda: [Match(nothing, nothing, None)], 'softmax'
    )
    assert not teacher.engine.settled


@pytest.mark.parametrize(
    ('values', 'good'),
    [
        ((100, 0.99, 1.0, 1e-4), True),
        ((100, 0.96, 1.0, 1e-4), False),
        ((100, 0.99, 0.97, 1e-4), False),
        # One of ten rows may have another class.
        ((10, 0.99, 0.9, 1e-4), True),
        ((100, 0.99, 1.0, 4e-3), False),
        ((100, float('nan'), 1.0, 1e-4), False),
    ],
)
def test_limits(values, good):
    assert Agreement(*values).good is good


def compared(exact, fast):
    exact, fast = (Match(each, each, None) for each in (exact, fast))
    return check.compare([exact], [fast], 'softmax')


@pytest.mark.parametrize('classes', [1000, 6000])
def test_a_wrong_row_is_seen_wherever_it_stands(classes):
    torch.manual_seed(0)
    exact = 3 * torch.randn(8, classes)
    fast = exact.clone()
    fast[1::2] = 3 * torch.randn(4, classes)
    found = compared(exact, fast)
    assert not found.good
    assert (found.rows, found.same_class) == (8, 0.5)


def test_rows_that_were_compared_are_told():
    exact = torch.randn(8, 1000)
    assert str(compared(exact, exact)).endswith('on 8 rows')
    # Every other one of 300.
    exact = torch.randn(300, 20)
    assert str(compared(exact, exact)).endswith('on 150 rows')
    # Of so many classes the pairs of one row take a while.
    exact = torch.randn(8, 6000)
    found = compared(exact, exact)
    assert found.good
    assert str(found).endswith('on 8 rows, tau on 1 of them')
    assert check.everywhere(found) == found


@pytest.mark.parametrize(
    ('others', 'running'),
    [
        ([1.0] * 6, 'bfloat16'),
        ([1.0, 1.0, -1.0, 1.0, -1.0, 1.0], 'float32'),
        ([0.0] * 6, 'float32'),
    ],
    ids=['as this one', 'one that refuses', 'one that fails'],
)
def test_processes_decide_alike(others, running, fast, monkeypatch):
    """A reader may add up over all processes: all read as often."""

    def least(values, op):
        assert op == 'min'
        other = torch.tensor(others[: len(values)], dtype=values.dtype)
        values.copy_(torch.minimum(values, other))

    monkeypatch.setattr(check, 'all_reduce', least)
    model = built()
    step('two_stage', model)
    assert model.teacher.engine.settled
    assert model.teacher.engine.running == running


def test_a_process_that_fails_asks_the_others_as_often(fast, monkeypatch):
    """Each waits for all answers: of rows first, then of each plan."""
    asked = []
    monkeypatch.setattr(
        check, 'all_reduce', lambda values, op: asked.append(values.tolist())
    )
    monkeypatch.setattr(engine, 'compare', fails)
    model = built()
    step('two_stage', model)
    assert model.teacher.engine.running == 'float32'
    of_plans = [values for values in asked if len(values) == 6]
    assert of_plans == [[0.0] * 6] * len(engine.PLANS)


def fails(*args):
    raise RuntimeError('out of memory')


def test_nan_is_the_least_of_all():
    assert check.least_of_all(0.5, 2) == [0.5, 2]
    first, second = check.least_of_all(float('nan'), 1)
    assert first != first and second == 1


def test_autocast_around_the_step_changes_nothing_inside():
    found = []
    for around in (False, True):
        model = built('classifier', precision='bfloat16')
        with torch.autocast('cpu', torch.bfloat16, enabled=around):
            found.append(logits('classifier', model))
    assert torch.equal(*found)
    assert found[0].dtype == torch.float32


def test_random_weights_stay_float32_unless_stated():
    config = dict(
        default_scope='mmpretrain', model=small_classifiers.classifier()
    )
    for options, settled in (({}, True), (dict(precision='bfloat16'), False)):
        teacher = build_teacher(config, allow_random_weights=True, **options)
        assert teacher.engine.settled is settled


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (dict(precision='int8'), r"teacher.precision must be one of .*'int8'"),
        (dict(precision=16), r'teacher.precision must be one of .*16'),
        (dict(compile='yes'), r"teacher.compile must be True .*'yes'"),
        (dict(stream=1), r'teacher.stream must be True or False, got 1'),
    ],
)
def test_unknown_options(option, message):
    with pytest.raises(ValueError, match=message):
        build_teacher(dict(type='x'), allow_random_weights=True, **option)


def test_layers_that_are_read_are_not_compiled(said):
    model = built('classifier')
    teacher = model.teacher.model
    compiled = TeacherEngine('float32', compile=True)
    compiled.settle(teacher, list, 'softmax', kept={'backbone.conv1'})
    assert compiled.settled
    assert "losses read its layers ['backbone.conv1']" in said[-1][1]
    assert teacher.backbone._compiled_call_impl is None


@pytest.mark.slow
def test_a_compiled_teacher_says_the_same(said):
    expected = logits('classifier', built('classifier', 'float32'))
    model = built('classifier', 'float32')
    model.teacher.engine = TeacherEngine('float32', compile=True)
    found = logits('classifier', model)
    assert not said, said
    assert model.teacher.model.backbone._compiled_call_impl is not None
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert copy.deepcopy(model.teacher).model.backbone is not None
