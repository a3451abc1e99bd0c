"""The student's boxes through the rest of the teacher's box head."""

import re
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, detector_config
from mmengine.registry import MODELS as MMENGINE
from small_roi_heads import roi_batch, roi_detector

from mmrkkd.distillers.class_map import match_classes
from mmrkkd.distillers.inference import TeacherEngine
from mmrkkd.distillers.readers.box_heads import box_stages
from mmrkkd.distillers.readers.cross_box_head import BoxCross
from mmrkkd.distillers.readers.two_stage import TwoStageReader
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
LAYER = 'shared_fcs.0'
CROSS = dict(type='rois', cross_layer=LAYER)
RKKD = dict(type='mmrkkd.RankKDLoss')
HTC = pytest.param('htc', marks=pytest.mark.slow)


def make(base='faster-rcnn', seed=0, **changes):
    """A detector whose scores tell boxes apart."""
    torch.manual_seed(seed)
    model = MMENGINE.build(detector_config(base, **changes))
    for name, weight in model.named_parameters():
        if 'bbox_head' in name and weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.05)
    return model


def frozen(model):
    return model.eval().requires_grad_(False)


def read(reader, student, teacher, data):
    """The losses, the taps and the matches of one step."""
    data = student.data_preprocessor(data, True)
    with reader.tap(student) as taps:
        losses = student(**data, mode='loss')
    matches = reader.read(
        taps, student, teacher, data['inputs'], data['data_samples']
    )
    return losses, taps, matches


def by_hand(student, teacher, stage, rois, images):
    """The student's maps and extractor, then the teacher's layers."""
    extractor, _ = box_stages(student)[stage]
    _, head = box_stages(teacher)[stage]
    values = extractor(student.extract_feat(images)[:4], rois).flatten(1)
    for layer in head.shared_fcs:
        values = layer(values).relu()
    return head.fc_cls(values)


@pytest.mark.parametrize('base', ['faster-rcnn', 'mask-rcnn', 'cascade-rcnn'])
def test_scores_are_those_of_the_teachers_head(base, batch):
    student, teacher = make(base), frozen(make(base, seed=1))
    # Batch statistics would be other ones in the second forward.
    student.backbone.eval()
    reader = TwoStageReader(cross_layer=LAYER)
    reader.check(student, teacher)
    _, taps, matches = read(reader, student, teacher, batch())
    images = student.data_preprocessor(batch(), True)['inputs']
    assert len(matches) == (3 if base == 'cascade-rcnn' else 1)
    for stage, (tap, match) in enumerate(zip(taps, matches, strict=True)):
        expected = by_hand(student, teacher, stage, match.places, images)
        assert len(expected) > 8
        assert expected.std(0).min() > 0
        torch.testing.assert_close(match.student_logits, expected)
        assert not torch.allclose(match.student_logits, tap.scores)
        assert not torch.allclose(match.student_logits, match.teacher_logits)


def test_what_the_teacher_says_and_the_task_stay_as_they_are(batch):
    results = []
    for layer in (None, LAYER):
        student, teacher = make(), frozen(make(seed=1))
        torch.manual_seed(2)
        reader = TwoStageReader(cross_layer=layer)
        results.append(read(reader, student, teacher, batch()))
    (losses, _, (plain,)), (others, _, (crossed,)) = results
    assert torch.equal(losses['loss_cls'], others['loss_cls'])
    assert torch.equal(plain.labels, crossed.labels)
    assert torch.equal(plain.teacher_logits, crossed.teacher_logits)


def test_a_twin_of_the_teacher_has_its_scores(batch):
    model = frozen(make('cascade-rcnn'))
    reader = TwoStageReader(cross_layer='shared_fcs.1')
    for match in read(reader, model, model, batch())[2]:
        torch.testing.assert_close(match.student_logits, match.teacher_logits)


def test_the_mean_of_a_cascade_is_crossed_too(batch):
    student, teacher = make(), frozen(make('cascade-rcnn', seed=1))
    student.backbone.eval()
    reader = TwoStageReader(cross_layer=LAYER, teacher_stage='mean')
    reader.check(student, teacher)
    _, _, (match,) = read(reader, student, teacher, batch())
    images = student.data_preprocessor(batch(), True)['inputs']
    pooled = student.roi_head.bbox_roi_extractor(
        student.extract_feat(images)[:4], match.places
    )
    scores = [head(pooled)[0] for head in teacher.roi_head.bbox_head]
    torch.testing.assert_close(match.student_logits, sum(scores) / 3)


@pytest.mark.parametrize('family', ['double_head', 'seesaw', 'trident', HTC])
def test_heads_that_call_theirs_in_another_way(family):
    layer = dict(double_head='fc_branch.0', trident='fc_cls').get(
        family, LAYER
    )
    student, teacher = roi_detector(family), roi_detector(family, seed=1)
    if family == 'trident':
        teacher.backbone.test_branch_idx = teacher.roi_head.test_branch_idx = 1
    reader = TwoStageReader(cross_layer=layer)
    reader.check(student, teacher)
    _, taps, matches = read(reader, student, frozen(teacher), roi_batch())
    for tap, match in zip(taps, matches, strict=True):
        assert match.student_logits.shape == match.teacher_logits.shape
        assert not torch.allclose(match.student_logits, tap.scores)
        (pull,) = torch.autograd.grad(
            match.student_logits.sum(), match.sources, retain_graph=True
        )
        assert pull.abs().sum() > 0


def built(losses=RKKD, **changes):
    """A distilled Faster R-CNN."""
    torch.manual_seed(0)
    config = dict(
        type='mmrkkd.KDDetector',
        student=detector_config(),
        teacher=dict(
            config=detector_config(),
            allow_random_weights=True,
            classes=CLASSES,
        ),
        losses=losses,
        class_names=CLASSES,
        matching=CROSS,
    )
    return MODELS.build({**config, **changes}).train()


def step(model, batch):
    return model(**model.data_preprocessor(batch(), True), mode='loss')


def test_gradient_reaches_the_features_alone(batch):
    model = built(gradient_interval=1)
    terms = step(model, batch)
    for term in ('kd', 'rank', 'task'):
        assert terms[f'kd/grad_norm_{term}'] > 0
    (terms['loss_kd'] + terms['loss_rank']).backward()
    head = model.student.roi_head.bbox_head
    assert all(weight.grad is None for weight in head.parameters())
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.model.parameters())
    for part in (model.student, model.teacher.model):
        for module in part.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
    assert f'from {LAYER} on' in repr(model.reader)
    assert model.state_dict().keys() == model.student.state_dict().keys()


@pytest.mark.parametrize(
    'loss', ['DKDLoss', 'DISTLoss', 'RankMimicLoss', 'PLDLoss']
)
def test_every_kind_of_loss_takes_it(loss, batch):
    terms = step(built(dict(type=f'mmrkkd.{loss}')), batch)
    task = ('cls', 'bbox')
    pulls = [k for k in terms if 'loss' in k and not k.endswith(task)]
    assert pulls
    assert all(terms[k].isfinite() and terms[k].requires_grad for k in pulls)


def test_an_image_without_boxes_to_sample_gives_no_match():
    student, reader = frozen(make()), TwoStageReader(cross_layer=LAYER)
    with reader.tap(student) as taps:
        pass
    inputs = torch.zeros(1, 3, 64, 64)
    (match,) = reader.read(taps, student, student, inputs, [])
    assert match.student_logits.shape == (0, 4)


def test_classes_are_compared_by_name(batch):
    student = make()
    teacher = frozen(make(num_classes=4, seed=1))
    student.backbone.eval()
    reader = TwoStageReader(cross_layer=LAYER)
    # The student alone knows birds.
    reader.class_map = match_classes(
        CLASSES, ('fox', 'dog', 'owl', 'cat'), 4, 5, True, mode='shared'
    )
    _, _, (match,) = read(reader, student, teacher, batch())
    images = student.data_preprocessor(batch(), True)['inputs']
    expected = by_hand(student, teacher, 0, match.places, images)
    assert match.student_logits.shape[1] == 4
    torch.testing.assert_close(
        reader.class_map.select_student(match.student_logits),
        # Cat, dog and the background.
        expected[:, [3, 1, 4]],
    )
    assert match.student_logits[:, 2].abs().sum() == 0


def test_shared_classes_train(batch):
    teacher = dict(
        config=detector_config(num_classes=4),
        allow_random_weights=True,
        classes=('dog', 'cat', 'cow', 'owl'),
    )
    model = built(teacher=teacher, classes='shared')
    assert step(model, batch)['loss_kd'].isfinite()


def test_the_crossed_head_keeps_float32(batch):
    model = built()
    model.teacher.engine = TeacherEngine('bfloat16')
    terms = step(model, batch)
    teacher = model.teacher.model
    assert model.teacher.engine.running == 'bfloat16'
    assert teacher.backbone.conv1.weight.dtype == torch.bfloat16
    dtypes = {p.dtype for p in teacher.roi_head.bbox_head.parameters()}
    assert dtypes == {torch.float32}
    terms['loss_kd'].backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0


def test_box_heads_in_half_precision(batch):
    model = built()
    # MMCV's NMS and RoI Align on a CPU take float32 only.
    for part in (model.student, model.teacher.model):
        head = part.roi_head.bbox_head
        head.forward = torch.autocast('cpu', torch.bfloat16)(head.forward)
    terms = step(model, batch)
    assert terms['loss_kd'].dtype == terms['loss_rank'].dtype == torch.float32
    terms['loss_kd'].backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0


def test_settings_of_the_page_are_settings(batch):
    page = Path(__file__).parents[2] / 'docs/en/own_detector_and_data.md'
    (text,) = re.findall(
        r'```python\n([^`]*cross_layer.*?)```', page.read_text(), re.S
    )
    settings = {}
    exec(text, settings)
    model = built(**settings['model'])
    assert step(model, batch)['loss_kd'] > 0


def test_unknown_layers_are_named():
    student = make()
    reader = TwoStageReader(cross_layer='shared_fcs.7')
    with pytest.raises(
        ValueError, match="head Shared2FCBBoxHead has no 'shared_fcs.7'; .*0"
    ):
        reader.check(student, student)


@pytest.mark.parametrize(
    'layer,message',
    [
        ('relu', "in the student's box head it runs 2 times"),
        ('loss_bbox', "in the student's box head it runs 0 times"),
        ('fc_reg', 'no class score of the teacher.s Shared2FCBBoxHead dep'),
    ],
)
def test_layers_that_lead_nowhere_are_refused(layer, message, batch):
    student, teacher = make(), frozen(make())
    with pytest.raises(ValueError, match=f'cross_layer.*{message}'):
        read(TwoStageReader(cross_layer=layer), student, teacher, batch())


def test_necks_of_other_widths_meet_behind_the_first_layer(batch):
    head = dict(
        bbox_roi_extractor=dict(out_channels=24),
        bbox_head=dict(in_channels=24),
    )
    wide = dict(out_channels=24), dict(in_channels=24), head
    student = make(**dict(zip(('neck', 'rpn_head', 'roi_head'), wide)))
    teacher = frozen(make(seed=1))
    with pytest.raises(
        ValueError, match=r'one shape in both heads, got .*1176.* 784.*\(boxes'
    ):
        read(TwoStageReader(cross_layer=LAYER), student, teacher, batch())
    reader = TwoStageReader(cross_layer='shared_fcs.1')
    _, _, (match,) = read(reader, student, teacher, batch())
    assert match.student_logits.shape == match.teacher_logits.shape


def test_activations_that_write_into_their_input_get_their_own():
    """Two heads of a teacher, one after the other, and the student's too."""

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.act = torch.nn.ReLU(inplace=True)

        def forward(self, values):
            return self.act(2 * values), None

    cross = BoxCross('act')
    heads = [Head(), Head()]
    values = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    entered = values.exp() - 2
    found = []
    for head in heads:
        with cross.crossed(head, [entered], [torch.zeros(1, 2)]):
            found.append(head(torch.zeros(1, 2))[0])
    assert torch.equal(*found)
    assert entered.min() < 0
    sum(found).sum().backward()
    expected = 2 * values.detach().exp() * (entered > 0)
    torch.testing.assert_close(values.grad, expected)
