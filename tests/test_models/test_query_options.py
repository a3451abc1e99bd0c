"""Options of the readers of queries, and pairs of unlike detectors."""

import re
from pathlib import Path

import pytest
import torch
from small_query_heads import (
    CLASSES,
    query_config,
    query_distilled,
)
from test_queries import Step, distillation, tell_queries_apart
from torch import nn

from mmrkkd.distillers import register_query_head
from mmrkkd.distillers.class_map import ClassMap
from mmrkkd.distillers.readers import (
    Scores,
    build_reader,
    query_heads,
    query_pairs,
)
from mmrkkd.distillers.readers.queries import QueryReader
from mmrkkd.distillers.readers.query_matching import Predictions
from mmrkkd.distillers.readers.sparse import SparseReader
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
RERUNS = (
    'detr',
    'conditional',
    'dab',
    'deformable',
    'deformable_refine',
    'deformable_two_stage',
    'dino',
)


def equal_weights(step):
    """Gives the teacher the student's weights; no dropout from now on."""
    teacher, student = step.model.teacher.model, step.model.student
    weights = student.state_dict()
    teacher.load_state_dict({k: weights[k] for k in teacher.state_dict()})
    student.eval()
    student.training = True


@pytest.mark.parametrize(
    'family',
    [
        family
        if family in ('deformable', 'dino')
        else pytest.param(family, marks=pytest.mark.slow)
        for family in RERUNS
    ],
)
def test_the_students_decoder_runs_on_the_teachers_queries(family):
    step = Step(family, matching=dict(match='teacher_queries'))
    assert len(distillation(step)) == 4
    total = sum(distillation(step).values())
    weights = [p for p in step.model.backbone.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    assert any(each is not None and each.any() for each in gradients)
    # The same weights, the same queries: nothing to teach.
    equal_weights(step)
    for match in step.matches():
        difference = match.student_logits - match.teacher_logits
        scale = match.teacher_logits.abs().max().clamp(min=1)
        assert difference.abs().max() < 1e-5 * scale
        assert match.labels is None


@pytest.mark.parametrize('match', ['hungarian', 'teacher_queries'])
def test_the_task_pulls_where_both_passes_read(match):
    step = Step('deformable', matching=dict(match=match))
    step.model.gradient_interval = 1
    terms = step.run(step.model)
    for name in ('task', 'binary_kd'):
        assert terms[f'kd/grad_norm_{name}'] > 0
        assert 0 < terms[f'kd/grad_share_{name}'] < 1


def test_decoders_that_are_asked_with_other_things():
    matching = dict(match='teacher_queries')
    with pytest.raises(ValueError, match=r"student's takes .*teacher's .*que"):
        Step('dino', teacher='deformable', matching=matching)


def test_the_pairs_are_the_teachers_surest():
    step = Step('deformable', matching=dict(teacher_top=7))
    for match in step.matches():
        assert match.student_logits.shape == (2 * 7, 3)
        assert match.weight.shape == (14,)
        best = match.teacher_logits.sigmoid().amax(1)
        torch.testing.assert_close(match.weight, best)
        assert match.images == 2


def test_the_pairs_are_the_surest_of_shared_classes():
    """The teacher is surest of its class 0, which the student has not."""
    reader = QueryReader(teacher_top=2)
    reader.class_map = ClassMap((0, 1), (2, 1))
    teacher = torch.tensor([[[9.0, -3, -4], [8, 1, 0], [-9, -2, 2]]])
    students = [Predictions(torch.randn(1, 3, 2))]
    (match,) = reader.pair(
        students, [Predictions(teacher)], Scores(2, 'sigmoid')
    )
    assert torch.equal(match.teacher_logits, teacher[0, 1:])
    torch.testing.assert_close(match.weight, torch.tensor([1.0, 2]).sigmoid())


@pytest.mark.parametrize(
    'options,prefixes',
    [
        (dict(layers='last'), ['']),
        (dict(teacher_layer='last'), ['d0.', '']),
        (dict(locations='all'), ['d0.', '']),
        (dict(locations='foreground'), ['d0.', '']),
    ],
)
def test_options_say_which_pairs_count(options, prefixes):
    step = Step('deformable', matching=dict(type='queries', **options))
    matches = step.matches()
    assert [match.prefix for match in matches] == prefixes
    if 'teacher_layer' in options:
        sets = [
            {tuple(row) for row in match.teacher_logits.tolist()}
            for match in matches
        ]
        assert sets[0] == sets[1]
    if options.get('locations') == 'all':
        assert all(match.weight is None for match in matches)
    if options.get('locations') == 'foreground':
        for match in matches:
            classes = (match.labels >= 0) & (match.labels < 3)
            assert torch.equal(match.weight, classes.float())


@pytest.mark.parametrize(
    'student,teacher',
    [('conditional', 'deformable'), ('deformable', 'dino'), ('dab', 'ddq')],
)
def test_heads_of_other_families_are_matched(student, teacher):
    step = Step(student, teacher=teacher)
    for value in distillation(step).values():
        assert value.isfinite()


def test_a_deeper_teacher_with_more_queries():
    config = query_distilled('detr', dict(type='mmrkkd.RankKDLoss'))
    config['teacher']['config'].decoder.num_layers = 3
    config['teacher']['config'].num_queries = 31
    model = MODELS.build(config)
    step = object.__new__(Step)
    step.family, step.model = 'detr', model.train()
    first, last = step.matches()
    assert len(first.student_logits) == len(last.student_logits) == 2 * 20
    # Counted from the last: its first layer teaches nobody.
    teacher = model.teacher.model
    seen = []
    handle = teacher.bbox_head.register_forward_hook(
        lambda module, args, outputs: seen.append(outputs[0])
    )
    first, last = step.matches()
    handle.remove()
    layers = [
        {tuple(row) for row in layer.flatten(0, 1).tolist()}
        for layer in seen[0]
    ]
    assert {tuple(row) for row in first.teacher_logits.tolist()} <= layers[1]
    assert {tuple(row) for row in last.teacher_logits.tolist()} <= layers[2]


def test_classes_in_another_order_are_matched_by_name():
    config = query_distilled('deformable', dict(type='mmrkkd.BinaryKDLoss'))
    order = [2, 0, 1]
    config['teacher']['classes'] = [CLASSES[index] for index in order]
    step = object.__new__(Step)
    step.family, step.model = 'deformable', MODELS.build(config).train()
    step.model.student.init_weights()
    tell_queries_apart(step.model.student)
    equal_weights(step)
    with torch.no_grad():
        # All layers share one.
        for layer in set(step.model.teacher.model.bbox_head.cls_branches):
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
    terms = step.run(step.model)
    assert 0 <= terms['loss_binary_kd'] < 1e-6
    assert 0 <= terms['d0.loss_binary_kd'] < 1e-6


def test_images_without_objects():
    step = Step('deformable')
    data = step.data()
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    terms = step.model(**data, mode='loss')
    assert all(
        value.isfinite() for value in distillation(step, terms).values()
    )
    for match in step.matches(**data):
        assert match.normalizer == 1
        assert (match.labels == 3).all()


@pytest.mark.parametrize(
    'family', ['deformable', 'mask2former', 'sparse_rcnn']
)
def test_held_out_images_are_compared_by_the_last_layer(family, monkeypatch):
    step = Step(family, matching=dict(locations='foreground'))
    model, data = step.model.eval(), step.data()
    equal_weights(step)
    step.model.student.eval()
    # By one process alone, whatever the losses take.
    monkeypatch.setattr(query_pairs, 'positives', None)
    ours, theirs = model.reader.held_out(
        model.student,
        model.teacher.model,
        data['inputs'],
        data['inputs'],
        data['data_samples'],
    )
    assert ours.shape == theirs.shape and len(ours) >= 2 * 20
    scale = theirs.abs().max().clamp(min=1)
    assert (ours - theirs).abs().max() < 1e-5 * scale


def test_readers_are_chosen_by_the_head():
    kinds = dict(detr=QueryReader, mask2former=QueryReader)
    kinds |= dict(sparse_rcnn=SparseReader)
    for family, kind in kinds.items():
        model = MODELS.build(query_config(family))
        assert type(build_reader('auto', model)) is kind
        named = dict(type=kind.name, teacher_top=5)
        assert build_reader(named, model).teacher_top == 5


def test_each_stage_of_sparse_has_its_weight():
    step = Step('sparse_rcnn')
    first, second = step.matches()
    assert (first.prefix, second.prefix) == ('s0.', 's1.')
    assert (first.scale, second.scale) == (1.0, 0.5)


def test_where_the_labels_are_not_shown_the_teachers_mass_counts():
    step = Step('deformable')
    with step.model.reader.tap(step.model.student) as taps:
        step.model.student(**step.data(), mode='loss')
    for call in range(len(taps.loss.calls)):
        seen, labels = taps.loss.calls[call]
        taps.loss.calls[call] = (seen + 1, labels)
    data = step.data()
    matches = step.model.reader.read(
        taps,
        step.model.student,
        step.model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )
    mass = matches[-1].confidence
    for match in matches:
        assert match.labels is None
        torch.testing.assert_close(
            match.normalizer, mass[mass >= 0.05].sum().clamp(min=1)
        )


# -- heads of users ----------------------------------------------------------

PAGE = Path(__file__).parents[2] / 'docs' / 'en' / 'query_detectors.md'
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)


class MyHead(nn.Module):
    """Boxes first, then scores; its losses are its own."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.score, self.box = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, features, data_samples):
        queries = features[0].flatten(1).view(len(features[0]), -1, 4)
        queries = torch.stack([queries, queries + 1])
        return self.box(queries).sigmoid(), self.score(queries)


class MyDetector(nn.Module):
    def __init__(self):
        super().__init__()
        self.bbox_head = MyHead()

    def extract_feat(self, inputs):
        return [inputs]


def test_a_head_of_a_user_is_one_line(monkeypatch):
    table = dict(query_heads.QUERY_HEADS)
    monkeypatch.setattr(query_heads, 'QUERY_HEADS', table)
    student, teacher = MyDetector(), MyDetector().eval()
    assert not QueryReader.fits(student)
    (code,) = [text for text in BLOCKS if 'register_query_head' in text]
    exec(code, {})
    reader = QueryReader(teacher_top=5)
    assert reader.fits(student)
    reader.check(student, teacher)
    assert str(reader.scores(student)) == '3 channels, sigmoid'
    inputs = torch.randn(2, 3, 4, 6)
    with reader.tap(student) as taps:
        student.bbox_head(student.extract_feat(inputs), [])
    first, last = reader.read(taps, student, teacher, inputs, [])
    _, scores = teacher.bbox_head([inputs], [])
    assert last.teacher_logits.shape == (10, 3) and last.labels is None
    rows = {tuple(row) for row in scores[1].flatten(0, 1).tolist()}
    assert {tuple(row) for row in last.teacher_logits.tolist()} <= rows
    assert first.prefix == 'd0.' and last.student_logits.requires_grad


@pytest.mark.parametrize(
    'options,error,words',
    [
        (dict(head=7), TypeError, 'head must be the class .* got 7'),
        (dict(read='x'), TypeError, "read must be a function .* got 'x'"),
        (dict(places='points'), ValueError, "places must .* got 'points'"),
        (dict(activation='relu'), ValueError, "activation must .* 'relu'"),
    ],
)
def test_what_cannot_be_registered(options, error, words):
    with pytest.raises(error, match=words):
        register_query_head(**{'head': 'MyHead', **options})
    assert 'MyHead' not in query_heads.QUERY_HEADS


def test_settings_of_the_page_are_settings():
    (text,) = [text for text in BLOCKS if 'matching=dict(' in text]
    names = {}
    exec(text, names)
    reader = build_reader(names['model']['matching'], None)
    # Those of the page are the defaults.
    assert repr(reader) == repr(QueryReader())
