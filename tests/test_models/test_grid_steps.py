"""Steps of dense students: classes, places, padding, heads of users."""

import copy
import re
from pathlib import Path

import pytest
import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.registry import MODELS as MMENGINE
from mmengine.structures import InstanceData
from small_dense_heads import CLASSES, batch, dense_config, distilled
from torch import nn

from mmrkkd.distillers import cells, register_head
from mmrkkd.distillers.readers import Reader, build_reader, heads
from mmrkkd.distillers.readers.grid import GridReader
from mmrkkd.evaluation import teacher_agreement
from mmrkkd.losses import BinaryKDLoss, KDLoss, KendallLoss, build_loss
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
RKKD = dict(type='mmrkkd.RankKDLoss')
BINARY = dict(type='mmrkkd.BinaryKDLoss')


def build(family='retinanet', losses=BINARY, **changes):
    torch.manual_seed(0)
    teacher = changes.pop('teacher_options', {})
    config = distilled(family, losses, **changes)
    config['teacher'].update(teacher)
    return MODELS.build(config).train()


def preprocessed(model, data=None):
    return model.data_preprocessor(data or batch(), True)


def terms_of(model, data=None):
    return model(**preprocessed(model, data), mode='loss')


def match_of(model, data=None):
    data = preprocessed(model, data)
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    (match,) = model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        model.teacher_inputs(**data),
        data['data_samples'],
    )
    return match


def test_rows_are_images_levels_places_anchors():
    model = build()
    data = preprocessed(model)
    match = match_of(model)
    maps, _ = model.teacher.model(data['inputs'], mode='tensor')
    rows = [
        maps[level][image, 3 * anchor : 3 * anchor + 3, y, x]
        for image in range(2)
        for level in range(5)
        for y in range(maps[level].shape[2])
        for x in range(maps[level].shape[3])
        for anchor in range(9)
    ]
    torch.testing.assert_close(match.teacher_logits, torch.stack(rows))


def test_labels_are_those_of_the_assigned_objects():
    match = match_of(build())
    # Each image has an object of every class.
    labels = match.labels.view(2, -1)
    for image in labels:
        assert set(image.unique().tolist()) == {0, 1, 2, 3}
    # Between foreground and background RetinaNet ignores some.
    assert match.counts.any() and not match.counts.all()
    assert match.normalizer == (match.labels < 3).sum()


def test_fsafs_positives_are_those_that_it_keeps():
    model = build('fsaf')
    match = match_of(model)
    kept = (match.labels >= 0) & (match.labels < 3)
    # The head's log has them for each image.
    assert kept.sum() == 2 * terms_of(model)['num_pos'] > 0
    assert match.normalizer == kept.sum()
    given_up = match.labels == -1
    assert given_up.sum() > kept.sum() and match.counts[given_up].all()


def test_terms_follow_from_the_match():
    model = build(losses=RKKD)
    data = preprocessed(model)
    terms = model(**data, mode='loss')
    match = match_of(model)
    kd = BinaryKDLoss()(
        match.student_logits,
        match.teacher_logits,
        None,
        match.counts.float(),
        match.normalizer,
    )
    torch.testing.assert_close(
        terms['loss_binary_kd'], 0.9 * kd['loss_binary_kd']
    )
    sure = match.teacher_logits.amax(1).sigmoid() * match.counts
    # 3069 anchors an image: 31 of the best.
    sure = sure.view(2, -1)
    best = sure.topk(31).indices + torch.tensor([[0], [sure.shape[1]]])
    rows = best.flatten()
    rank = KendallLoss()(
        match.student_logits[rows],
        match.teacher_logits[rows],
        None,
        sure.flatten()[rows],
    )
    torch.testing.assert_close(terms['loss_rank'], 0.9 * rank['loss_rank'])


def test_softmax_over_the_classes_of_objects_alone():
    losses = dict(
        type='mmrkkd.KDLoss', temperature=2.0, locations='foreground'
    )
    model = build(losses=losses)
    terms, match = terms_of(model), match_of(model)
    rows = match.labels < 3
    expected = KDLoss(temperature=2.0)(
        match.student_logits[rows], match.teacher_logits[rows]
    )
    torch.testing.assert_close(terms['loss_kd'], expected['loss_kd'])


def test_foreground_without_labels_says_what_to_do():
    model = build('yolox', dict(BINARY, locations='foreground'))
    with pytest.raises(RuntimeError, match="'foreground' needs labels.*'top'"):
        terms_of(model)


def test_images_without_objects():
    data = batch()
    for sample in data['data_samples']:
        sample.gt_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
        )
    model = build(losses=RKKD)
    terms = terms_of(model, data)
    assert terms['loss_binary_kd'].isfinite()
    assert terms['loss_rank'].isfinite()


def permuted(names):
    """Models whose teacher is the student with its classes in an order."""
    model = build(
        losses=RKKD,
        classes='shared',
        teacher_options=dict(classes=names),
    )
    model.teacher.model.load_state_dict(model.student.state_dict())
    head = model.teacher.model.bbox_head.retina_cls
    order = [CLASSES.index(name) if name in CLASSES else 0 for name in names]
    rows = torch.arange(27).view(9, 3)[:, order].flatten()
    head.weight.copy_(head.weight[rows])
    head.bias.copy_(head.bias[rows])
    model.student.eval()
    model.student.bbox_head.training = True
    return model


def test_classes_in_another_order_are_matched_by_name():
    terms = terms_of(permuted(('bird', 'cat', 'dog')))
    assert terms['kd/kl'] < 1e-6
    assert terms['loss_binary_kd'] < 1e-5


def test_shared_classes_leave_out_cells_of_others():
    model = permuted(('bird', 'fish', 'cat'))
    terms = terms_of(model)
    assert terms['kd/kl'] < 1e-6
    match = match_of(model)
    labels, weight = model.class_map.select_samples(
        match.labels, match.weight, 3
    )
    # 'dog' is label 1; the background, label 3, stays.
    assert (weight[match.labels == 1] == 0).all()
    assert set(labels[weight > 0].unique().tolist()) == {0, 1, 2}


def test_classes_that_the_student_has_not_choose_no_cells():
    model = permuted(('bird', 'fish', 'cat'))
    scores = model.teacher.model.bbox_head.retina_cls
    scores.bias.view(9, 3)[:, 1] += 20.0
    model.reader.class_map = model.class_map
    match = match_of(model)
    expected = match.teacher_logits[:, [0, 2]].sigmoid().amax(1)
    torch.testing.assert_close(match.confidence, expected)


def test_one_class_is_enough():
    config = distilled('gfl', BINARY, gradient_interval=1)
    for part in (config['student'], config['teacher']['config']):
        part.bbox_head.num_classes = 1
    config['teacher']['classes'] = config['class_names'] = ['person']
    data = batch()
    for sample in data['data_samples']:
        sample.gt_instances.labels[:] = 0
    terms = terms_of(MODELS.build(config).train(), data)
    assert terms['loss_binary_kd'] > 0
    assert terms['kd/kl'] > 0
    assert 'kd/tau' not in terms


def test_the_students_padded_size_is_kept():
    config = distilled('retinanet', RKKD)
    config['student'].data_preprocessor.pad_size_divisor = 16
    config['teacher']['config'].data_preprocessor.update(
        pad_size_divisor=128, pad_value=7
    )
    model = MODELS.build(config).train()
    data = batch()
    data['inputs'] = [image[:, :80, :112] for image in data['inputs']]
    for sample in data['data_samples']:
        sample.set_metainfo(dict(img_shape=(80, 112)))
        sample.gt_instances = sample.gt_instances[:1]
    data = preprocessed(model, data)
    seen = model.teacher_inputs(**data)
    assert seen.shape == data['inputs'].shape == (2, 3, 80, 112)
    assert model(**data, mode='loss')['loss_binary_kd'].isfinite()


def test_other_cells_are_refused_at_the_first_batch(monkeypatch):
    model = build('fcos')
    read = heads.HeadSpec.levels
    teacher = model.teacher.model.bbox_head
    monkeypatch.setattr(
        heads.HeadSpec,
        'levels',
        lambda spec, outputs, head: read(spec, outputs, head)[
            : 4 if head is teacher else 5
        ],
    )
    with pytest.raises(
        ValueError, match=r'other cells .*FCOSHead has \[\(2, '
    ):
        terms_of(model)


# -- heads with other cells --------------------------------------------------


@pytest.mark.parametrize(
    'family,changes,sides',
    [
        ('retinanet', dict(ratios=[2.0, 1.0, 0.5]), '22.63 x 45.25'),
        ('retinanet', dict(octave_base_scale=8), '45.25 x 22.63'),
        ('yolov3', dict(base_sizes=[[(9, 8)] * 3] * 3), '116 x 90'),
    ],
)
def test_as_many_anchors_of_other_shapes_are_refused(family, changes, sides):
    config = dense_config(family)
    student = MMENGINE.build(copy.deepcopy(config))
    config.bbox_head.anchor_generator.update(changes)
    teacher = MMENGINE.build(config)
    message = rf"other anchors in a cell.*{sides}.*anchors='max'"
    with pytest.raises(ValueError, match=message):
        GridReader().check(student, teacher)
    GridReader().check(student, student)
    GridReader(anchors='max').check(student, teacher)


@pytest.mark.parametrize(
    'changes',
    [
        # Half a cell, and half a pixel, apart.
        dict(center_offset=0.5),
        dict(type='LegacyAnchorGenerator', center_offset=0.5),
    ],
)
def test_anchors_of_the_same_sides_are_compared(changes):
    config = dense_config('retinanet')
    student = MMENGINE.build(copy.deepcopy(config))
    config.bbox_head.anchor_generator.update(changes)
    teacher = MMENGINE.build(config)
    one, another = (
        each.bbox_head.prior_generator.base_anchors[0]
        for each in (student, teacher)
    )
    assert not torch.allclose(one, another)
    GridReader().check(student, teacher)


def test_one_anchor_of_another_size_is_compared():
    config = dense_config('gfl')
    student = MMENGINE.build(copy.deepcopy(config))
    config.bbox_head.anchor_generator.octave_base_scale = 4
    GridReader().check(student, MMENGINE.build(config))


def test_highest_of_the_anchors():
    model = build(
        'fcos',
        RKKD,
        teacher='retinanet',
        matching=dict(type='grid', anchors='max'),
    )
    assert 'anchors max, levels same (experimental)' in repr(model.reader)
    data = preprocessed(model)
    assert model(**data, mode='loss')['loss_binary_kd'].isfinite()
    match = match_of(model)
    maps, _ = model.teacher.model(model.teacher_inputs(**data), mode='tensor')
    rows = [level.view(2, 9, 3, -1).amax(1).transpose(1, 2) for level in maps]
    torch.testing.assert_close(
        match.teacher_logits, torch.cat(rows, 1).flatten(0, 1)
    )
    assert match.labels is None and match.counts is None


def test_levels_that_both_have():
    model = build(
        'rtmdet',
        RKKD,
        teacher='gfl',
        matching=dict(type='grid', levels='shared'),
    )
    data = preprocessed(model)
    assert model(**data, mode='loss')['loss_binary_kd'].isfinite()
    match = match_of(model)
    maps, _ = model.teacher.model(model.teacher_inputs(**data), mode='tensor')
    # Strides 8, 16 and 32 of five levels.
    rows = [level.flatten(2).transpose(1, 2) for level in maps[:3]]
    torch.testing.assert_close(
        match.teacher_logits, torch.cat(rows, 1).flatten(0, 1)
    )


def test_mappings_do_not_go_with_a_crossing_layer():
    with pytest.raises(
        ValueError, match='cross_layer needs heads with the sa'
    ):
        GridReader(cross_layer='cls_convs.2.activate', anchors='max')


@pytest.mark.parametrize('family', ['gfl', 'ssd'])
@pytest.mark.parametrize('name', ['MLKDLoss', 'CRLDLoss'])
def test_losses_of_two_views_are_for_classifiers(family, name):
    message = f'{name} compares 2 views of each image, and a KDDetector sees'
    with pytest.raises(TypeError, match=message):
        build(family, dict(type=f'mmrkkd.{name}'))


def test_two_views_of_a_batch_are_refused():
    model, data = build(), batch()
    data['inputs'] = [data['inputs'], data['inputs']]
    with pytest.raises(ValueError, match=r'got 2 views .*take MultiView out'):
        model.data_preprocessor(data, True)


# -- heads of users ----------------------------------------------------------


@pytest.fixture
def registered():
    before = dict(heads.HEADS)
    yield register_head
    heads.HEADS.clear()
    heads.HEADS.update(before)


class SwappedHead(nn.Module):
    """Boxes first, then scores; its losses are its own."""

    num_classes = 3
    strides = (8,)

    def __init__(self):
        super().__init__()
        self.score = nn.Conv2d(3, 3, 8, 8)

    def forward(self, features):
        maps = [self.score(each) for each in features]
        return [maps[0].detach()], maps

    def loss(self, features, data_samples):
        _, maps = self(features)
        return dict(loss_own=maps[0].square().mean())


class SwappedDetector(nn.Module):
    def __init__(self):
        super().__init__()
        self.bbox_head = SwappedHead()

    def extract_feat(self, inputs):
        return [inputs]


def test_a_head_of_a_user_is_one_line(registered):
    student, teacher = SwappedDetector(), SwappedDetector().eval()
    assert not GridReader.fits(student)

    def read(outputs, head):
        _, scores = outputs
        return [cells(maps, head.num_classes) for maps in scores]

    registered('SwappedHead', read, activation='sigmoid', uses=(1,))
    reader = GridReader()
    assert reader.fits(student)
    reader.check(student, teacher)
    inputs = torch.randn(2, 3, 16, 24)
    with reader.tap(student) as taps:
        student.bbox_head.loss(student.extract_feat(inputs), [])
    (match,) = reader.read(taps, student, teacher, inputs, [])
    assert match.student_logits.shape == match.teacher_logits.shape == (12, 3)
    expected = teacher.bbox_head.score(inputs).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(match.teacher_logits, expected.detach())
    assert not teacher.bbox_head.training


class BoxesFirst(BaseDenseHead):
    """On MMDetection's base alone, which does not say what comes first."""

    num_classes, cls_out_channels, use_sigmoid_cls = 3, 3, True

    def loss_by_feat(self):
        return {}


def test_a_head_on_the_base_of_all_has_to_be_registered(registered):
    detector = SwappedDetector()
    detector.bbox_head = BoxesFirst()
    assert not GridReader.fits(detector)
    message = 'no dense head whose scores are known.*register_head'
    with pytest.raises(TypeError, match=message):
        GridReader().check(detector, detector)
    message = r"BoxesFirst stands on .*register_head\('BoxesFirst'\)"
    with pytest.raises(TypeError, match=message):
        build_reader('auto', detector)
    registered(BoxesFirst, uses=(1,))
    GridReader().check(detector, detector)


def test_a_head_that_does_not_say_its_activation_is_named(registered):
    registered(SwappedHead)
    message = r"SwappedHead does not say .*register_head\('SwappedHead', act"
    with pytest.raises(TypeError, match=message):
        GridReader().check(SwappedDetector(), SwappedDetector())


@pytest.mark.parametrize(
    'args,error,message',
    [
        ((7,), TypeError, 'head must be the class .* got 7'),
        (('H', 'x'), TypeError, "read must be a function .* got 'x'"),
        (('H', None, 'relu'), ValueError, "activation must .* got 'relu'"),
    ],
)
def test_what_cannot_be_registered(registered, args, error, message):
    with pytest.raises(error, match=message):
        registered(*args)


def test_a_head_that_never_ran_is_told():
    student = MMENGINE.build(dense_config('retinanet'))
    with GridReader().tap(student) as taps:
        pass
    with pytest.raises(RuntimeError, match='RetinaHead was not called as a m'):
        GridReader().read(taps, student, student, torch.zeros(1), [])


def test_the_joint_logit_is_that_of_the_product():
    scores = 20 * torch.randn(50, 4).double()
    objectness = 20 * torch.randn(50, 1).double()
    joint = heads.joint_logit(scores, objectness)
    product = scores.sigmoid() * objectness.sigmoid()
    torch.testing.assert_close(joint.sigmoid(), product)
    far = heads.joint_logit(torch.tensor([[1e4]]), torch.tensor([[-1e4]]))
    assert far.item() == -1e4


def test_settings_of_the_page_are_settings():
    page = Path(__file__).parents[2] / 'docs' / 'en' / 'dense_detectors.md'
    blocks = re.findall(r'```python\n(.*?)```', page.read_text(), re.S)
    settings = [
        text
        for text in blocks
        if '    matching=dict(' in text and '_base_' not in text
    ]
    assert len(settings) == 3
    for text in settings:
        names = {}
        exec(text, names)
        losses = names['model']['losses']
        for loss in [losses] if isinstance(losses, dict) else losses:
            build_loss(loss).suit('sigmoid')
        build_reader(names['model']['matching'], None)


def rows_of(maps, image):
    """(R, 3): rows of an image, by level, place and anchor."""
    levels = [each[image].unflatten(0, (9, 3)) for each in maps]
    return torch.cat(
        [each.permute(2, 3, 0, 1).flatten(0, 2) for each in levels]
    )


def surest(maps, teacher_maps, image):
    """The rows of both where the teacher is surest, one in a hundred."""
    rows, taught = rows_of(maps, image), rows_of(teacher_maps, image)
    count = -(-len(rows) // 100)
    kept = taught.sigmoid().amax(1).argsort(descending=True)[:count]
    return rows[kept], taught[kept]


def test_held_out_images_are_compared_where_the_teacher_is_surest():
    model = build(losses=RKKD).eval()
    data = model.data_preprocessor(batch(), False)
    inputs = data['inputs']
    pair = model.reader.held_out(
        model.student,
        model.teacher.model,
        inputs,
        model.teacher_inputs(**data),
        data['data_samples'],
    )
    with torch.no_grad():
        maps, _ = model.student(inputs, mode='tensor')
    taught, _ = model.teacher.model(inputs, mode='tensor')
    wanted = [surest(maps, taught, image) for image in range(2)]
    for found, side in zip(pair, zip(*wanted)):
        # In whatever order: sums over the rows of each image.
        for rows, some in zip(found.chunk(2), side):
            assert rows.shape == some.shape
            torch.testing.assert_close(rows.sum(0), some.sum(0))
    assert not model.student.bbox_head.training


def test_a_student_with_its_teachers_weights_agrees_on_held_out_images():
    model = build(losses=RKKD)
    model.student.load_state_dict(model.teacher.model.state_dict())
    found = teacher_agreement(model, [batch()], False)
    assert found['tau'] == pytest.approx(1)
    assert found['top1_agreement'] == 1
    assert found['kl'] == pytest.approx(0, abs=1e-5)
    assert found['cells'] > 10


def test_other_readers_say_that_they_cannot_compare():
    class Other(GridReader):
        name = 'other'
        held_out = Reader.held_out

    with pytest.raises(NotImplementedError, match="reader 'other' does not"):
        Other().held_out(None, None, None, None, [])
