"""Training steps whose forward pass runs in half precision."""

import copy

import pytest
import torch
from conftest import CLASSES as BOXES
from conftest import detector_config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_classifiers import batch, distilled

from mmrkkd.distillers import KDDetector
from mmrkkd.engine import AutocastOptimWrapper

HALVES = [torch.float16, torch.bfloat16]
TERMS = ('loss_kd', 'loss_rank', 'total')
# As AmpOptimWrapper's: fp16 has no room for small gradients. A power of 2
# adds no rounding.
LOSS_SCALE = 2.0**12


@pytest.fixture(params=[False, True], ids=['trained_bn', 'frozen_bn'])
def classifier(request):
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(distilled())
    model.init_weights()
    model.train(not request.param)
    for parameter in model.teacher.model.parameters():
        parameter.mul_(1.5)
    yield model
    DefaultScope._instance_dict.clear()


def gradients(model, terms, last):
    """Name of a term to its gradients: at all parameters, at the last layer.

    Args:
        last: The student's layer that computes the logits.
    """
    terms = dict(terms, total=model.parse_losses(terms)[0])
    everything, at_last = {}, {}
    for name in TERMS:
        model.zero_grad()
        (LOSS_SCALE * terms[name]).backward(retain_graph=True)
        everything[name] = torch.cat(
            [
                parameter.grad.flatten() / LOSS_SCALE
                for parameter in model.parameters()
                if parameter.grad is not None
            ]
        )
        at_last[name] = last.weight.grad / LOSS_SCALE
    return everything, at_last


def products(module):
    """How many layers of a module multiply in half precision."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    return sum(isinstance(part, kinds) for part in module.modules())


def check_gradients(ours, exact, layers, dtype):
    """
    Each product rounds its two factors and its result: three roundings of
    u each, forwards in both models and backwards in the student, 9 L for L
    layers. They do not all point the same way, so the root of their number
    is what they come to: r = 3 sqrt(L) u in front of the logits.

    Below them, ReLU's derivative jumps where a rounding changes a unit's
    sign. That is about a share r of the units, each of which gains or loses
    its whole gradient: an error of sqrt(r) in the norm.
    """
    rounding = 3 * layers**0.5 * torch.finfo(dtype).eps / 2
    for budget, one, other in zip((rounding**0.5, rounding), ours, exact):
        for name in TERMS:
            error = (one[name] - other[name]).norm() / other[name].norm()
            assert 0 < error <= budget, (name, float(error), budget)


@pytest.mark.parametrize('dtype', HALVES)
def test_a_classifiers_step_stays_within_the_rounding(classifier, dtype):
    data = classifier.data_preprocessor(batch(), True)
    exact = classifier(**copy.deepcopy(data), mode='loss')
    with torch.autocast('cpu', dtype=dtype):
        terms = classifier(**copy.deepcopy(data), mode='loss')
    for name in ('loss_kd', 'loss_rank'):
        assert terms[name].dtype == torch.float32
        assert terms[name].isfinite()
        assert terms[name] != exact[name]  # Half precision did run.
    last = classifier.student.head.fc
    check_gradients(
        gradients(classifier, terms, last),
        gradients(classifier, exact, last),
        products(classifier.student),
        dtype,
    )


def test_the_wrapper_trains_on_a_cpu(classifier):
    optimizer = torch.optim.SGD(classifier.student.parameters(), lr=0.01)
    before = copy.deepcopy(classifier.state_dict())
    terms = classifier.train_step(
        batch(), AutocastOptimWrapper(dtype='bfloat16', optimizer=optimizer)
    )
    assert all(value.isfinite() for value in terms.values())
    after = classifier.state_dict()
    assert set(after) == set(before)
    assert all(value.isfinite().all() for value in after.values())
    weight = 'backbone.conv1.weight'
    assert after[weight].dtype == torch.float32
    assert not torch.equal(after[weight], before[weight])


@pytest.mark.parametrize('scale', [1e4, 0.0])
@pytest.mark.parametrize('dtype', [None, *HALVES])
def test_a_wild_head_keeps_gradients_bounded(classifier, dtype, scale):
    """Logits of 1e4 and logits that are all the same."""
    head = classifier.student.head.fc
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(scale * torch.tensor([1.0, -0.5, 0.3, 0.1, -1.0]))
    seen = []
    head.register_forward_hook(lambda _, __, logits: seen.append(logits))
    data = classifier.data_preprocessor(batch(), True)
    with torch.autocast(
        'cpu', dtype=dtype or torch.bfloat16, enabled=dtype is not None
    ):
        terms = classifier(**data, mode='loss')
    assert float(seen[0].detach().abs().max()) == pytest.approx(
        scale, rel=2**-7
    )
    assert all(value.isfinite() for value in terms.values())
    total, _ = classifier.parse_losses(terms)
    (gradient,) = torch.autograd.grad(total, seen[0])
    # |p - onehot| <= 1 of the cross entropy, 0.9 T |p_s - p_t| of KL; the
    # ranking's share is 0 without an order and shrinks with the deviation.
    assert gradient.isfinite().all()
    assert gradient.abs().max() <= (1 + 0.9 * 4 + 1 / max(scale, 1)) / 8


# -- detectors -------------------------------------------------------------


def half_heads(model, dtype):
    """Puts the box heads of both models under autocast.

    On a CPU MMCV's NMS and RoI Align take float32 only, whatever the model:
    the rest stays in float32, and with it the boxes that are sampled.
    """
    for part in (model.student, model.teacher.model):
        head = part.roi_head.bbox_head
        head.forward = torch.autocast('cpu', dtype=dtype)(head.forward)


@pytest.mark.usefixtures('mmdet_scope')
@pytest.mark.parametrize('dtype', HALVES)
def test_a_detectors_step_stays_within_the_rounding(dtype, batch):
    torch.manual_seed(0)
    model = KDDetector(
        student=detector_config(),
        teacher=dict(
            config=detector_config(),
            allow_random_weights=True,
            classes=BOXES,
        ),
        losses=dict(type='mmrkkd.RankKDLoss', temperature=1.0),
        class_names=BOXES,
    ).eval()

    def step():
        torch.manual_seed(1)
        data = model.data_preprocessor(batch(), True)
        return model(**data, mode='loss')

    exact = step()
    half_heads(model, dtype)
    terms = step()
    assert terms['loss_rpn_cls'] == exact['loss_rpn_cls']
    for name in ('loss_kd', 'loss_rank'):
        assert terms[name].isfinite()
        assert terms[name] != exact[name]
    head = model.student.roi_head.bbox_head
    check_gradients(
        gradients(model, terms, head.fc_cls),
        gradients(model, exact, head.fc_cls),
        products(head),
        dtype,
    )
