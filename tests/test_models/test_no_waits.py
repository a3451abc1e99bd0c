"""A training step of distillation waits for the GPU nowhere of its own.

Waits are counted by what is dispatched (tests/waits.py), so that a machine
without a GPU shows them. A step is counted once it is warm: constants are
sent to a device once.
"""

import collections
import copy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

from mmrkkd.losses import LOSSES, KDLoss, LogitLoss
from mmrkkd.ops import checks
from mmrkkd.ops.soft_rank import soft_rank_torch, soft_rank_vjp_torch
from mmrkkd.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_together'))

import small_classifiers
import small_dense_heads
import small_detectors
from waits import ours, waits

RKKD = dict(type='mmrkkd.RankKDLoss')
OTHER_ORDER = ('bird', 'cat', 'dog')
# The most waits of a loss in a step, without weights of samples and with
# them; every other loss has none.
MOST = dict(
    # Their terms belong to the batch, and samples of weight 0 must leave it:
    # they are picked out.
    DISTLoss=(0, 1),
    MLKDLoss=(0, 1),
    # The candidates of each object are gathered, and counted.
    BoxRankLoss=(8, 9),
    RankMimicLoss=(2, 3),
)


def two_stage(base='faster-rcnn', teacher_classes=None, **changes):
    items = [small_detectors.sample(number) for number in (0, 1)]
    data = {
        key: [item[key] for item in items]
        for key in ('inputs', 'data_samples')
    }
    config = small_detectors.distilled(base, changes.pop('losses', RKKD))
    if teacher_classes:
        config['teacher']['classes'] = teacher_classes
    return 'mmdet', dict(config, **changes), data


def shared(**changes):
    config = small_detectors.detector_config(num_classes=4)
    return two_stage(
        classes='shared',
        student=config,
        class_names=('dog', 'fish', 'cat', 'bird'),
        **changes,
    )


def dense(family, **changes):
    config = small_dense_heads.distilled(family, RKKD, **changes)
    return 'mmdet', config, small_dense_heads.batch(family)


def classifier(losses=RKKD, views=1, **changes):
    config = small_classifiers.distilled(losses, **changes)
    data = small_classifiers.batch()
    if views > 1:
        data['inputs'] = [data['inputs'], data['inputs'].flip(-1)]
    return 'mmpretrain', config, data


CASES = {
    'two stages': two_stage,
    'two stages, background not ranked': lambda: two_stage(
        losses=dict(RKKD, ignore_channels=[-1])
    ),
    'foreground': lambda: two_stage(rois='foreground'),
    'confidence': lambda: two_stage(rois='confidence'),
    'cascade': lambda: two_stage('cascade-rcnn'),
    'other order of classes': lambda: two_stage(teacher_classes=OTHER_ORDER),
    'shared classes': shared,
    'RetinaNet': lambda: dense('retinanet'),
    'GFL, highest anchors': lambda: dense(
        'gfl', matching=dict(type='grid', anchors='max')
    ),
    'FCOS, foreground': lambda: dense(
        'fcos', matching=dict(type='grid', locations='foreground')
    ),
    'classifier': classifier,
    'classifier, two views': lambda: classifier(
        dict(RKKD, kd=dict(type='mmrkkd.MLKDLoss')), views=2
    ),
    'classifier, target class': lambda: classifier(dict(type='DKDLoss')),
    'classifier, pulls logged': lambda: classifier(gradient_interval=1),
}


class Steps:
    """A distiller on a batch, its student's own step beside it."""

    def __init__(self, scope, config, data):
        self.scope, self.data = scope, data
        with DefaultScope.overwrite_default_scope(scope):
            torch.manual_seed(0)
            self.model = MODELS.build(copy.deepcopy(config)).train()

    def waits(self, model, warm=1):
        """Those of one step: forward, the sum of the terms, backward."""
        with DefaultScope.overwrite_default_scope(self.scope):
            for step in range(warm + 1):
                torch.manual_seed(step)
                batch = copy.deepcopy(self.data)
                batch = self.model.data_preprocessor(batch, True)
                if not isinstance(batch['inputs'], list) or (
                    model is self.model
                ):
                    inputs = [batch.pop('inputs')]
                else:
                    inputs = batch.pop('inputs')
                with waits() as noted:
                    for each in inputs:
                        terms = model(each, **batch, mode='loss')
                        self.model.parse_losses(terms)[0].backward()
        return noted


@pytest.mark.parametrize('case', CASES)
def test_a_step_waits_for_nothing_of_ours(case):
    steps = Steps(*CASES[case]())
    noted = ours(steps.waits(steps.model))
    asked = [wait for wait in noted if wait.package == 'mmrkkd']
    assert asked == []
    # What nobody of us asks for is in the backward pass: the student's own.
    own = ours(steps.waits(steps.model.student))
    assert count(noted) == count(own)


def count(noted):
    return collections.Counter(wait.operator for wait in noted)


def test_a_step_waits_as_often_as_student_and_teacher_alone():
    steps = Steps(*classifier())
    inputs = steps.model.data_preprocessor(steps.data, True)['inputs']
    with torch.no_grad(), waits() as teachers:
        steps.model.teacher.model(inputs, mode='tensor')
    students = steps.waits(steps.model.student)
    both = count(students) + count(teachers)
    assert count(steps.waits(steps.model)) == both


class AsksTooMuch(KDLoss):
    """A loss that looks at its value in every step."""

    def per_sample(self, student_logits, teacher_logits, labels):
        terms = super().per_sample(student_logits, teacher_logits, labels)
        if terms['loss_kd'].sum().item() < 0:
            raise AssertionError
        return terms


def test_a_loss_that_asks_for_its_value_is_caught():
    scope, config, data = classifier(AsksTooMuch())
    steps = Steps(scope, config, data)
    with waits() as noted:
        batch = steps.model.data_preprocessor(copy.deepcopy(data), True)
        steps.model(**batch, mode='loss')
    assert count(noted)['_local_scalar_dense'] == 1


@pytest.mark.parametrize(
    'asks',
    [
        lambda x: x[x > 0],
        lambda x: x.__setitem__(x > 0, 1.0),
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: bool((x > 0).any()),
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: torch.equal(x, x + 1),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x[[0, 2]],
        lambda x: x.unique(),
    ],
    ids=range(13),
)
def test_every_kind_of_wait_is_seen(asks):
    values = torch.tensor([-1.0, 0.0, 2.0])
    with waits() as noted:
        asks(values)
    assert noted


def test_masks_gathers_and_weights_are_no_waits():
    values, places = torch.randn(4, 3), torch.tensor([2, 0])
    with waits() as noted:
        torch.where(values > 0, values, 0.0).sum()
        values.masked_fill(values > 0, 0.0)
        values[places].gather(1, places[:, None])
        values.topk(2)
        values.new_full((3,), 1.0)
    assert noted == []


LOGIT_LOSSES = [
    name for name, kind in LOSSES.items() if issubclass(kind, LogitLoss)
]


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('name', LOGIT_LOSSES)
def test_a_loss_waits_at_most_as_often_as_stated(name, weighted):
    loss = LOSSES[name]()
    views = (loss.views,) if loss.views > 1 else ()
    student, teacher = torch.randn(2, *views, 6, 9)
    labels = torch.randint(9, (6,)).expand(*views, 6)
    weight = torch.tensor([1.0, 0.5, 0, 2.0, 0, 1.0]).expand(*views, 6)
    student.requires_grad_()
    with waits() as noted:
        terms = loss(student, teacher, labels, weight if weighted else None)
        sum(v for k, v in terms.items() if 'loss' in k).backward()
    assert len(noted) <= MOST.get(name, (0, 0))[weighted], noted


# CRD makes a tensor of the images' numbers on the host, and sends it without
# waiting; the count cannot tell.
OF_FEATURES = dict(CRDLoss=1)


@pytest.mark.slow
@pytest.mark.parametrize('where', ['classifier', 'detector'])
def test_feature_losses_wait_nowhere(where):
    import test_feature_losses as features

    make, found = getattr(features, where), {}
    for name, config in getattr(features, where.upper()).items():
        model, data = make(copy.deepcopy(config))
        for _ in range(2):
            batch = model.data_preprocessor(copy.deepcopy(data), True)
            with waits() as noted:
                terms = model(**batch, mode='loss')
                model.parse_losses(terms)[0].backward()
        DefaultScope._instance_dict.clear()
        asked = [wait for wait in noted if wait.package == 'mmrkkd']
        if len(asked) != OF_FEATURES.get(name, 0):
            found[name] = asked
    assert not found


def test_soft_ranks_of_a_gpu_are_found_without_coming_back():
    values = 3 * torch.randn(5, 40)
    with waits() as noted:
        _, order, block = soft_rank_torch(values, -10.0)
        soft_rank_vjp_torch(values, order, block, -10.0)
    assert noted == []


def test_values_are_at_hand_again_behind_the_block():
    with waits():
        assert not checks.at_hand(torch.zeros(1))
    assert checks.at_hand(torch.zeros(1))
