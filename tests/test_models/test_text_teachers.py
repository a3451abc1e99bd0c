"""Teachers that are asked in words teach students with a list of classes."""

import pytest
import torch
from mmdet.models.dense_heads import atss_vlfusion_head
from mmdet.models.dense_heads.atss_vlfusion_head import (
    convert_grounding_to_cls_scores,
)
from mmengine.registry import MODELS as ROOT_MODELS
from small_dense_heads import CLASSES, dense_config
from small_query_heads import query_batch, query_config
from small_text_models import SmallBertConfig, glip, grounding_dino

from mmrkkd.distillers.readers.text_heads import class_logits
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
LOSSES = dict(type='mmrkkd.RankKDLoss')
NAMES = ('cat', 'big dog', 'bird')


@pytest.fixture(autouse=True)
def without_bert(monkeypatch):
    monkeypatch.setattr(atss_vlfusion_head, 'BertConfig', SmallBertConfig)


def config(student, teacher, **changes):
    return dict(
        type='mmrkkd.KDDetector',
        student=student,
        teacher=dict(
            config=teacher, allow_random_weights=True, classes=list(NAMES)
        ),
        losses=LOSSES,
        class_names=NAMES,
        **changes,
    )


PAIRS = {
    'queries': lambda: config(query_config('dino'), grounding_dino()),
    'grid': lambda: config(dense_config('atss'), glip()),
}


def built(kind):
    torch.manual_seed(0)
    model = MODELS.build(PAIRS[kind]())
    if kind == 'queries':
        mend(model.teacher.model.decoder, model.student.decoder)
    model.student.init_weights()
    model.teacher.model.init_weights()
    return model.train()


def mend(decoder, dinos):
    """Positions as wide as DINO's decoder, which this one runs, gives them.

    In onedl-mmdetection 3.5.1 they are 4 times as wide as the embeddings, and
    Grounding DINO expects 2 times: there it does not run.
    """
    times = dinos.ref_point_head.layers[0].in_features // dinos.embed_dims
    first = decoder.ref_point_head.layers[0]
    wide = torch.nn.Linear(times * decoder.embed_dims, first.out_features)
    decoder.ref_point_head.layers[0] = wide


def data_of(model):
    return model.data_preprocessor(query_batch('dino'), True)


@pytest.mark.parametrize('kind', PAIRS)
def test_a_student_learns_from_a_teacher_that_reads(kind):
    model = built(kind)
    terms = model(**data_of(model), mode='loss')
    kd = [value for key, value in terms.items() if key.endswith('binary_kd')]
    assert len(kd) == (2 if kind == 'queries' else 1)
    assert all(value.isfinite() and value > 0 for value in kd)
    sum(kd).backward()
    assert any(
        weight.grad is not None and weight.grad.any()
        for weight in model.backbone.parameters()
    )


@pytest.mark.parametrize('kind', PAIRS)
def test_its_logits_are_what_it_predicts(kind, monkeypatch):
    """The mean over a name's tokens, as MMDetection's predict takes it."""
    model = built(kind)
    teacher, data = model.teacher.model, data_of(model)
    seen = []
    handle = teacher.bbox_head.register_forward_hook(
        lambda module, args, outputs: seen.append(outputs[0])
    )
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    match = model.reader.read(
        taps, model.student, teacher, data['inputs'], data['data_samples']
    )[-1]
    handle.remove()
    # [CLS] cat . big dog . bird . [SEP]
    tokens = {1: [1], 2: [3, 4], 3: [6]}
    if kind == 'queries':
        scores = seen[0][-1].sigmoid()
    else:
        scores = torch.cat(seen[0], 1).sigmoid()
    expected = convert_grounding_to_cls_scores(scores, [tokens] * 2)
    ours = match.teacher_logits.sigmoid().view(2, -1, 3)
    # All cells, or all 24 queries.
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)


def test_class_logits_by_hand():
    # Two tokens of 1/4 and 3/4: 1/2; one of 1/2; one that is not there.
    three = torch.tensor(3.0).log()
    tokens = torch.tensor([-three, three, 0.0, float('-inf')])
    share = torch.tensor([[0.5, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    logits = class_logits(tokens, share)
    lowest = torch.logit(torch.tensor(1e-6))
    expected = torch.tensor([0.0, 0.0, lowest])
    torch.testing.assert_close(logits, expected)
    assert class_logits(tokens.bfloat16(), share).dtype == torch.float32


def test_names_in_another_order_are_the_same_classes():
    model = built('queries')
    select = model.match_student_classes(NAMES)
    assert select.teacher is None
    model.teacher.classes = ('bird', 'cat', 'big dog')
    assert model.match_student_classes(NAMES).teacher == (1, 2, 0)


def test_the_samples_of_the_student_stay_as_they_are():
    model = built('grid')
    data = data_of(model)
    before = [set(sample.all_keys()) for sample in data['data_samples']]
    model(**data, mode='loss')
    for sample, keys in zip(data['data_samples'], before):
        assert set(sample.all_keys()) == keys


@pytest.mark.parametrize('kind', PAIRS)
def test_a_teacher_without_a_list_of_classes_is_refused(kind):
    pair = PAIRS[kind]()
    del pair['teacher']['classes']
    with pytest.raises(TypeError, match=r'teacher=dict\(\.\.\., classes='):
        MODELS.build(pair)


@pytest.mark.parametrize('kind', PAIRS)
def test_a_student_that_reads_is_refused(kind):
    pair = PAIRS[kind]()
    pair['student'] = pair['teacher']['config']
    with pytest.raises(TypeError, match="student's head .* can be a teacher"):
        MODELS.build(pair)


def test_a_teacher_with_several_texts_is_refused():
    pair = PAIRS['queries']()
    pair['teacher']['config'].test_cfg.chunked_size = 40
    with pytest.raises(ValueError, match='several texts .*chunked_size=-1'):
        MODELS.build(pair)


def test_a_text_that_is_too_long_is_told():
    model = built('queries')
    names = [f'class{index}' for index in range(20)]
    model.reader.prompts = names
    data = data_of(model)
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    with pytest.raises(ValueError, match="'class12' has no token in the text"):
        model.reader.read(
            taps,
            model.student,
            model.teacher.model,
            data['inputs'],
            data['data_samples'],
        )


def test_the_small_models_are_mmdetections():
    assert type(ROOT_MODELS.build(grounding_dino())).__name__ == (
        'GroundingDINO'
    )
    assert CLASSES[0] == NAMES[0]
