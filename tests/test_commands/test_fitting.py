"""Which methods go with which detectors, and what else is said to take."""

import argparse
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import detector_config
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmrkkd.cli import add_change_option, change_config
from mmrkkd.commands import distill
from mmrkkd.commands.fitting import INSTEAD, Detectors
from mmrkkd.commands.methods import (
    PREFIXES,
    losses_of,
    method_names,
    read_method,
)
from mmrkkd.commands.naming_layers import (
    CrossingError,
    saying_how_to_name_layers,
)
from mmrkkd.commands.trial import _initialise, described
from mmrkkd.commands.wrapping import wrap

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'test_models'))

from small_dense_heads import dense_config  # noqa: E402
from small_query_heads import FAMILIES as QUERIES  # noqa: E402
from small_query_heads import SPARSE, query_config  # noqa: E402
from small_roi_heads import roi_config  # noqa: E402

SIGMOID_QUERIES = 'detector with queries'


def small(family):
    """The whole config of a small detector."""
    if family == 'faster':
        model = detector_config()
    elif family in ('grid', 'sabl'):
        model = roi_config(family)
    elif family in QUERIES:
        model = query_config(family)
    else:
        model = dense_config(family)
    return ConfigDict(default_scope='mmdet', model=model)


def detectors(student, teacher=None):
    return Detectors(small(student), small(teacher or student))


def wrapped(method, student, teacher, folder):
    checkpoint = folder / 'teacher.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), checkpoint)
    config = Config(small(student))
    return wrap(config, small(teacher), checkpoint, method)


# -- weights of FCOS --------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'weights'),
    [
        ('crosskd', [0.4]),
        ('crosskd_giou', [0.4, 0.75]),
        ('crosskd_rk', [0.4]),
        ('crosskd_rk_giou', [0.4, 0.75]),
    ],
)
def test_crosskd_of_fcos_has_its_published_weights(name, weights):
    losses = detectors('fcos').method(name).losses
    first, *others = losses if isinstance(losses, list) else [losses]
    cross = first.get('kd', first)
    assert [loss.loss_weight for loss in (cross, *others)] == weights
    assert first.get('kd_weight', 1) == first.get('rank_weight', 1) == 1


def test_the_command_gives_fcos_what_its_shipped_config_has(tmp_path):
    folder = ROOT / 'configs' / 'detection' / 'fcos'
    name = 'crosskd-giou_fcos_r101-r50_caffe_fpn_gn-head_ms-2x_coco.py'
    shipped = Config.fromfile(folder / name).model
    plan = wrapped('crosskd_giou', 'fcos', 'fcos', tmp_path)
    assert repr(losses_of(plan.config.model)) == repr(losses_of(shipped))
    assert plan.config.model.task_weight == shipped.task_weight
    plan.config.work_dir = 'out'
    assert (
        'method: crosskd_giou for a dense detector with the head of FCOS, '
        f'{plan.method.source}'
    ) in described(plan)
    assert plan.method.source.stem == 'fcos_crosskd_giou'


@pytest.mark.parametrize('family', ['retinanet', 'vfnet', 'autoassign'])
def test_other_heads_keep_the_weights_of_all(family):
    """Two of these derive from FCOS's head; their scores are others."""
    assert detectors(family).method('crosskd').source.stem == 'dense_crosskd'


def test_a_method_without_weights_for_fcos_is_that_of_all():
    kind = 'dense detector with the head of FCOS'
    assert read_method('kd', kind).source.stem == 'dense_kd'
    assert method_names(kind) == method_names('dense detector')


# -- what is offered --------------------------------------------------------


@pytest.mark.parametrize(
    ('family', 'kind', 'offered', 'others'),
    [
        ('retinanet', 'dense detector', 'crosskd_giou', ['kd_giou']),
        ('faster', 'detector', 'crosskd', ['crosskd_giou']),
        ('ssd', 'detector', 'kd', ['crosskd']),
        ('detr', 'detector', 'kd_giou', ['crosskd']),
        ('mask2former', 'detector', 'rkkd', ['crosskd']),
        ('deformable', SIGMOID_QUERIES, 'kd_giou', ['crosskd_giou']),
        ('sparse_rcnn', SIGMOID_QUERIES, 'rkkd_giou', ['crosskd', 'dkd']),
    ],
)
def test_what_is_offered_goes_with_the_student(family, kind, offered, others):
    pair = detectors(family)
    assert pair.kind == kind
    for name in others:
        with pytest.raises(ValueError, match=f'no method {name!r}') as caught:
            pair.method(name)
        text = str(caught.value)
        assert f'for a {kind}' in text
        names = text.rpartition('The methods: ')[2].split(', ')
        assert offered in names and not set(others) & set(names)
        near = re.search("did you mean '(.*)'", text)
        assert near is None or near[1] in names
        for each in names:
            pair.method(each)


def test_the_methods_of_queries_are_those_of_the_shipped_pairs():
    folder = ROOT / 'configs' / 'detection' / 'deformable_detr'
    for name in ('kd', 'rkkd'):
        method = read_method(name, SIGMOID_QUERIES)
        path = f'{name}_deformable-detr_r101-r50_16xb2-50e_coco.py'
        model = Config.fromfile(folder / path).model
        assert model.losses == method.losses
        assert model.task_weight == method.task_weight
        with_boxes = read_method(f'{name}_giou', SIGMOID_QUERIES)
        first, boxes = with_boxes.losses
        assert first == method.losses
        assert boxes == read_method('kd_giou', 'detector').losses[1]


# -- boxes that are not known, anchors that are not there -------------------


@pytest.mark.parametrize(
    ('name', 'student', 'teacher', 'instead'),
    [
        ('crosskd_ld', 'retinanet', 'retinanet', 'crosskd_giou'),
        ('ld', 'retinanet', 'retinanet', 'crosskd_giou'),
        ('crosskd_giou', 'vfnet', 'vfnet', 'crosskd_rk'),
        ('crosskd_rk_ld', 'vfnet', 'vfnet', 'crosskd_rk'),
        ('kd_giou', 'grid', 'grid', 'kd'),
        ('rkkd_giou', 'sabl', 'sabl', 'rkkd'),
        ('kd_giou', 'mask2former', 'mask2former', 'kd'),
        ('kd_giou', 'ssd', 'ssd', 'kd'),
        ('ld', 'deformable', 'deformable', 'kd'),
        # Anchors: boxes to start from, which points and queries are not.
        ('fgfi', 'fcos', 'fcos', 'fitnet'),
        ('fgfi', 'detr', 'detr', 'fitnet'),
        ('fgfi', 'sparse_rcnn', 'sparse_rcnn', 'fitnet'),
        # Of the student they are known, of the teacher not.
        ('crosskd_ld', 'gfl', 'atss', 'crosskd_giou'),
        ('crosskd_ld', 'gfl', 'vfnet', 'crosskd_rk'),
    ],
)
def test_what_the_two_have_not_another_method_is_named_for(
    name, student, teacher, instead
):
    pair = detectors(student, teacher)
    with pytest.raises(ValueError, match=f'^--method {name}: ') as caught:
        pair.method(name.replace('_', '-'))
    text = str(caught.value)
    assert student == teacher or "the teacher's " in text
    assert text.endswith(f'. On the command line: --method {instead}')
    assert pair.method(instead).name == instead


@pytest.mark.parametrize('family', ['retinanet', 'gfl', 'faster', 'fcos'])
def test_what_needs_anchors_is_offered_where_there_are_some(family):
    pair = detectors(family)
    with pytest.raises(ValueError, match="no method 'x'") as caught:
        pair.method('x')
    names = str(caught.value).rpartition('The methods: ')[2].split(', ')
    assert 'fitnet' in names and ('fgfi' in names) == (family != 'fcos')


def test_every_method_that_asks_for_them_has_others_in_its_place():
    for kind in PREFIXES:
        for name in method_names(kind):
            losses = losses_of(read_method(name, kind))
            asks = any(
                getattr(loss, 'asks_for', ())
                or getattr(loss, 'needs_anchors', False)
                for loss in losses
            )
            assert asks == (name in INSTEAD), name
    names = {name for kind in PREFIXES for name in method_names(kind)}
    assert names.issuperset(name for each in INSTEAD.values() for name in each)


def test_a_teacher_of_another_kind_is_left_to_the_distiller():
    """Which names both; no other method would help."""
    assert detectors('faster', 'gfl').method('kd_giou').name == 'kd_giou'


# -- layers -----------------------------------------------------------------


def build(plan):
    teacher = plan.config.model.teacher
    plan.config.model.teacher = dict(
        config=teacher.config, allow_random_weights=True
    )
    with (
        saying_how_to_name_layers(plan),
        DefaultScope.overwrite_default_scope('mmdet'),
    ):
        return MODELS.build(plan.config.model)


@pytest.mark.parametrize(
    ('name', 'student', 'teacher', 'layers'),
    [
        ('crosskd_giou', 'fcos', 'atss', 2),
        ('crosskd_rk', 'gfl', 'vfnet', 1),
    ],
)
def test_layers_that_differ_are_named_by_what_the_message_says(
    name, student, teacher, layers, tmp_path
):
    plan = wrapped(name, student, teacher, tmp_path)
    text = f"^--method {name}: cross_layer='.*name one layer of both.*"
    with pytest.raises(CrossingError, match=text) as caught:
        build(plan)
    options = str(caught.value).rpartition('--cfg-options ')[2].split()
    assert len(options) == layers
    parser = argparse.ArgumentParser()
    add_change_option(parser)
    changes = parser.parse_args(['--cfg-options', *options]).cfg_options
    change_config(plan.config, changes)
    build(plan)


def test_other_errors_inside_are_not_touched(tmp_path):
    plan = wrapped('crosskd', 'fcos', 'fcos', tmp_path)
    for error in (ValueError('no'), TypeError("cross_layer='a'")):
        with (
            pytest.raises(type(error)) as caught,
            saying_how_to_name_layers(plan),
        ):
            raise error
        assert caught.value is error
    # Without a layer to cross at nothing can be said of one.
    plan = wrapped('kd', 'fcos', 'fcos', tmp_path)
    with (
        pytest.raises(ValueError, match="^cross_layer='a'$"),
        saying_how_to_name_layers(plan),
    ):
        raise ValueError("cross_layer='a'")


def test_a_run_ends_with_the_line_that_says_it(monkeypatch, capsys, tmp_path):
    plan = wrapped('crosskd', 'fcos', 'fcos', tmp_path)

    def fail(*args, **options):
        raise ValueError("cross_layer='auto': no")

    plan.config.work_dir = str(tmp_path)
    monkeypatch.setattr(distill, 'prepare', lambda *args, **options: plan)
    monkeypatch.setattr(distill, '_run', fail)
    arguments = ['student.py', '--teacher', 'teacher.py', 'teacher.pth']
    assert distill.main(arguments) == 1
    assert capsys.readouterr().err == (
        "mmrkkd distill: --method crosskd: cross_layer='auto': no. Layers are "
        'named by --cfg-options model.matching.cross_layer=cls_convs.2.'
        'activate\n'
    )


# -- the batch of a dry run -------------------------------------------------


PRETRAINED = dict(type='Pretrained', checkpoint='gone.pth')
OTHER = dict(type='Kaiming', layer='Conv2d')


@pytest.mark.parametrize('init_cfg', [PRETRAINED, [OTHER, PRETRAINED]])
@pytest.mark.parametrize('family', SPARSE)
def test_a_dry_run_begins_with_the_proposals_of_a_training(family, init_cfg):
    """Random boxes have a negative size, at which RoIAlign stops."""
    model = query_config(family)
    model.backbone.init_cfg = init_cfg
    with DefaultScope.overwrite_default_scope('mmdet'):
        student = MODELS.build(model)
    boxes = student.rpn_head.init_proposal_bboxes.weight
    assert boxes[:, 2:].min() < 0
    _initialise(student)
    assert boxes[:, 2:].eq(1).all()
    # Nothing was fetched; the rest is done as it would be.
    expected = [OTHER] if isinstance(init_cfg, list) else None
    assert student.backbone.init_cfg == expected
