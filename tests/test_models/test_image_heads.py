"""Every head of MMPretrain: its prediction is distilled, or it is refused."""

import copy

import mmpretrain.models  # noqa: F401
import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.models.heads import ClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.functional import cross_entropy

from mmrkkd.distillers import KDClassifier
from mmrkkd.distillers.readers.classifier import (
    ClassifierReader,
    image_logits,
)
from mmrkkd.distillers.readers.image_heads import check_image_head

LINEAR = dict(num_classes=5, in_channels=64)
SINGLE = dict(type='GlobalAveragePooling')
# Head to its config; those of two tokens get two vectors.
ACCEPTED = {
    'ArcFaceClsHead': dict(LINEAR, scale=4.0),
    'ConformerHead': dict(num_classes=5, in_channels=[64, 64]),
    'DeiTClsHead': LINEAR,
    'EfficientFormerClsHead': dict(LINEAR, distillation=False),
    'LeViTClsHead': dict(LINEAR, distillation=False),
    'LinearClsHead': LINEAR,
    'StackedLinearClsHead': dict(LINEAR, mid_channels=[16]),
    'VigClsHead': dict(LINEAR, hidden_dim=16),
    'VisionTransformerClsHead': dict(LINEAR, hidden_dim=16),
}
TWO_TOKENS = ('ConformerHead', 'DeiTClsHead')
# Head without a layer, on what classifies before it: tested by backbone.
PASSED_THROUGH = ('ClsHead',)
REFUSED = {
    'MultiLabelClsHead': r'by a sigmoid \(multi-label\), whatever its loss',
    'MultiLabelLinearClsHead': r'by a sigmoid \(multi-label\)',
    'CSRAClsHead': r'by a sigmoid \(multi-label\)',
    'MultiTaskHead': 'a head for each of several tasks',
    'RegressionHead': 'predicts numbers, not classes',
    'LinearRegressionHead': 'predicts numbers, not classes',
    'VQAGenerationHead': 'answers in words',
    'GroundingHead': 'has no loss_module',
    'ITCHead': 'has no loss_module',
    'SeqGenerationHead': 'has no loss_module',
    'SparKPretrainHead': 'has no loss_module',
    **dict.fromkeys(
        (
            'BEiTV1Head',
            'BEiTV2Head',
            'CAEHead',
            'ContrastiveHead',
            'ITMHead',
            'LatentCrossCorrelationHead',
            'LatentPredictHead',
            'MAEPretrainHead',
            'MIMHead',
            'MixMIMPretrainHead',
            'MoCoV3Head',
            'SimMIMHead',
            'SwAVHead',
            'iTPNClipHead',
        ),
        'predicts no classes, as heads for pre-training',
    ),
}
WITHOUT_LOSS = {
    head for head, why in REFUSED.items() if 'no loss_module' in why
}


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """Names in configs mean MMPretrain's, as inside its runner."""
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()


@MODELS.register_module(force=True)
class TwoTokens(nn.Module):
    """A neck that gives two vectors of an image, as two tokens."""

    def forward(self, features):
        vector = features[-1].mean((-1, -2))
        return ([vector, vector.flip(-1)],)


def classifier(head, neck=SINGLE, **options):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(num_classes=5),
        backbone=dict(type='mmrkkd.CIFARResNet', depth=8),
        neck=dict(type='TwoTokens') if head in TWO_TOKENS else neck,
        head=dict(
            dict(type=head, loss=dict(type='CrossEntropyLoss')), **options
        ),
    )


def built(config, seed=0):
    torch.manual_seed(seed)
    return MODELS.build(copy.deepcopy(config))


def twins(config):
    """A student in eval mode, and a teacher with its weights."""
    student, teacher = built(config), built(config, seed=1)
    teacher.load_state_dict(student.state_dict())
    return student.eval(), teacher.eval()


def images(side=32, channels=3):
    torch.manual_seed(0)
    return torch.randn(4, channels, side, side)


def samples():
    return [DataSample().set_gt_label(label) for label in (0, 4, 2, 2)]


def read(student, teacher, inputs):
    reader = ClassifierReader()
    reader.check(student, teacher)
    with reader.tap(student) as tap:
        losses = student(inputs, samples(), mode='loss')
    (match,) = reader.read(tap, student, teacher, inputs, samples())
    return losses, match


def predicted(model, inputs):
    """(N, C) probabilities that a classifier's own predict gives."""
    predictions = model(inputs, samples(), mode='predict')
    return torch.stack([each.pred_score for each in predictions])


def assert_equal_teacher_has_nothing_to_teach(config, inputs):
    student, teacher = twins(config)
    _, match = read(student, teacher, inputs)
    # Equal up to a constant of a row would do; they are equal.
    torch.testing.assert_close(
        match.student_logits.detach(), match.teacher_logits
    )
    torch.testing.assert_close(
        match.student_logits.softmax(1), predicted(student, inputs)
    )
    assert match.student_logits.std(1).min() > 0
    assert match.labels.tolist() == [0, 4, 2, 2]
    assert ClassifierReader().scores(student).channels == 5
    gradients = torch.autograd.grad(
        match.student_logits[:, 0].sum(),
        [p for p in student.parameters() if p.requires_grad],
        allow_unused=True,
    )
    assert any(each is not None and each.any() for each in gradients)


@pytest.mark.parametrize('head', ACCEPTED)
def test_an_equal_teacher_has_nothing_to_teach(head):
    assert_equal_teacher_has_nothing_to_teach(
        classifier(head, **ACCEPTED[head]), images()
    )


BACKBONES = {
    'VGG': (dict(type='VGG', depth=11, num_classes=5), 224, 3),
    'AlexNet': (dict(type='AlexNet', num_classes=5), 224, 3),
    'LeNet5': (dict(type='LeNet5', num_classes=5), 32, 1),
}


@pytest.mark.parametrize(
    'backbone',
    [
        # 130 million weights, the least that it has.
        pytest.param('VGG', marks=pytest.mark.slow),
        'AlexNet',
        'LeNet5',
    ],
)
def test_backbones_that_classify_have_a_head_without_layers(backbone):
    config = classifier('ClsHead', neck=None)
    config['backbone'], side, channels = BACKBONES[backbone]
    assert_equal_teacher_has_nothing_to_teach(config, images(side, channels))


def test_classes_that_nothing_states_are_counted():
    config = classifier('ClsHead')
    # The vectors of this CIFARResNet have 64 numbers.
    assert ClassifierReader().scores(built(config)).channels == 64


def test_a_head_without_layers_needs_one_vector_of_an_image():
    student = built(classifier('ClsHead', neck=None))
    with pytest.raises(ValueError, match=r'puts out \(1, 64, .* no row of'):
        ClassifierReader().check(student, student)


def test_every_head_is_accepted_or_refused():
    """A head that MMPretrain adds shows up here."""
    known = {
        name
        for name, kind in MODELS.module_dict.items()
        if kind.__module__.startswith('mmpretrain.models.heads')
    }
    assert known <= {*ACCEPTED, *PASSED_THROUGH, *REFUSED}


@pytest.mark.parametrize('name', REFUSED)
@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_other_heads_are_refused_by_name(name, side):
    kind = MODELS.get(name)
    if kind is None:
        pytest.skip(f'this MMPretrain has no {name}')
    model = built(classifier('LinearClsHead', **LINEAR))
    # As it is after its __init__, which wants other things for each.
    head = kind.__new__(kind)
    nn.Module.__init__(head)
    if name not in WITHOUT_LOSS:
        head.loss_module = nn.CrossEntropyLoss()
    model.head = head
    with pytest.raises(
        TypeError, match=rf"the {side} .*'s head {name} .*{REFUSED[name]}"
    ):
        check_image_head(side, model)


@pytest.mark.parametrize('head', ['EfficientFormerClsHead', 'LeViTClsHead'])
def test_second_heads_teach_and_do_not_learn(head):
    config = classifier(head, **LINEAR, distillation=True)
    student, teacher = twins(classifier('LinearClsHead', **LINEAR))
    teacher = built(config).eval()
    _, match = read(student, teacher, images())
    torch.testing.assert_close(
        match.teacher_logits.softmax(1), predicted(teacher, images())
    )
    with pytest.raises(TypeError, match=f'{head} .*set distillation=False'):
        ClassifierReader().check(teacher, student)


def test_a_margin_is_the_losss_alone():
    """ArcFace's loss sees other scores than its prediction."""
    student, teacher = twins(
        classifier('ArcFaceClsHead', **LINEAR, scale=4.0, margins=0.5)
    )
    losses, match = read(student, teacher, images())
    labels = torch.tensor([0, 4, 2, 2])
    plain = cross_entropy(match.student_logits, labels)
    assert losses['loss'] > plain + 0.1
    cosine = match.teacher_logits / 4.0
    margin = torch.cos(torch.acos(cosine) + 0.5)
    rows = torch.arange(4)
    seen = cosine.clone()
    seen[rows, labels] = margin[rows, labels]
    torch.testing.assert_close(
        losses['loss'], cross_entropy(4.0 * seen, labels)
    )


def test_both_outputs_of_two_are_distilled():
    """Conformer predicts with their sum, and its loss sees each."""
    student = built(classifier('ConformerHead', **ACCEPTED['ConformerHead']))
    model = KDClassifier(
        student=student,
        teacher=dict(
            config=classifier('LinearClsHead', **LINEAR),
            allow_random_weights=True,
        ),
        losses=dict(type='mmrkkd.KDLoss'),
        task_weight=0.0,
        gradient_interval=1,
    )
    terms = model(images(), samples(), mode='loss')
    model.parse_losses(terms)[0].backward()
    for part in (student.head.conv_cls_head, student.head.trans_cls_head):
        assert part.weight.grad.abs().sum() > 0
    assert terms['kd/grad_norm_kd'] > 0


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='FocalLoss'),
        dict(type='AsymmetricLoss'),
        dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='multi_label'),
        dict(type='CrossEntropyLoss', use_sigmoid=True),
    ],
    ids=lambda loss: loss['type'],
)
def test_losses_that_decide_by_a_sigmoid_are_refused(loss):
    config = classifier('LinearClsHead', **LINEAR)
    plain = built(config)
    config['head']['loss'] = loss
    with pytest.raises(TypeError, match=f'with {loss["type"]} decides each'):
        ClassifierReader().check(plain, built(config))


def test_a_loss_that_a_hook_puts_in_is_looked_at():
    """MMPretrain's SwitchRecipeHook changes the loss in mid-run."""
    student, teacher = twins(classifier('LinearClsHead', **LINEAR))
    reader = ClassifierReader()
    reader.check(student, teacher)
    softmax = dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=5)
    student.head.loss_module = MODELS.build(softmax)
    with reader.tap(student) as tap:
        student(images(), samples(), mode='loss')
    (match,) = reader.read(tap, student, teacher, images(), samples())
    assert match.labels.tolist() == [0, 4, 2, 2]
    sigmoid = dict(type='CrossEntropyLoss', use_sigmoid=True)
    student.head.loss_module = MODELS.build(sigmoid)
    with (
        pytest.raises(TypeError, match="student's head LinearClsHead .* sigm"),
        reader.tap(student),
    ):
        pass


@MODELS.register_module(force=True)
class ScalingHead(ClsHead):
    """Its loss sees its scores times 10, so what it predicts is not known."""

    num_classes = 64

    def _get_loss(self, cls_score, data_samples, **options):
        return super()._get_loss(10 * cls_score, data_samples, **options)


def test_scores_that_the_loss_does_not_see_are_no_logits():
    student = built(classifier('ScalingHead'))
    with pytest.raises(RuntimeError, match='ScalingHead computed 1 .* none'):
        read(student, student.eval(), images())


def test_a_head_that_runs_twice_is_refused():
    student = built(classifier('LinearClsHead', **LINEAR))
    plain = student.extract_feat

    def twice(inputs):
        student.head(plain(inputs))
        return plain(inputs)

    student.extract_feat = twice
    with pytest.raises(RuntimeError, match='LinearClsHead ran 2 times'):
        read(student, student.eval(), images())


class TimmClassifier(nn.Module):
    """Without timm: its class name, its parts and the way of its forward."""

    def __init__(self, loss):
        super().__init__()
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32**2, 5))
        self.model.num_classes = 5
        self.loss_module = loss
        self.with_neck = self.with_head = False

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.model(inputs)
        if mode == 'tensor':
            return scores
        labels = torch.cat([each.gt_label for each in data_samples])
        return dict(loss=self.loss_module(scores, labels))

    def predict(self, inputs):
        raise AssertionError


def test_a_network_without_a_head_has_its_loss_beside_it():
    model = TimmClassifier(nn.CrossEntropyLoss())
    _, match = read(model, model, images())
    torch.testing.assert_close(
        match.teacher_logits, match.student_logits.detach()
    )
    assert torch.equal(match.teacher_logits, image_logits(model, images()))
    assert match.labels.tolist() == [0, 4, 2, 2]
