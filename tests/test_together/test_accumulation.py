"""Accumulated and clipped gradients, with distillation, are plain sums."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_classifiers import batch, classifier, distilled, train

LEARNING_RATE = 0.05


@pytest.fixture
def model():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    # Batch statistics would differ between one batch and its halves.
    model = MODELS.build(distilled(student=classifier(norm_eval=True)))
    model.init_weights()
    # The batches of a student without a signal would all weigh the same.
    for parameter in model.teacher.model.parameters():
        parameter.mul_(1.5)
    yield model
    DefaultScope._instance_dict.clear()


def mean_gradient(model, batches):
    """Name to the mean of the batches' gradients."""
    model = copy.deepcopy(model).train()
    for data in batches:
        terms = model(**model.data_preprocessor(data, True), mode='loss')
        assert terms['loss_kd'] > 0 and terms['loss_rank'] != 0
        total, _ = model.parse_losses(terms)
        (total / len(batches)).backward()
    return {
        name.removeprefix('student.'): parameter.grad
        for name, parameter in model.named_parameters()
    }


def check_step(before, saved, gradients):
    """One step of SGD along the gradients, and nothing else."""
    assert set(saved) == set(before)
    for name, gradient in gradients.items():
        # Weights of about 1 are rounded once; a sum of 100 products in
        # another order is off by some roundings of the gradient.
        torch.testing.assert_close(
            saved[name],
            before[name] - LEARNING_RATE * gradient,
            rtol=2**-22,
            atol=2**-18 * LEARNING_RATE * float(gradient.abs().max()),
        )


@pytest.mark.parametrize('max_norm', [None, 0.5])
def test_two_accumulated_batches_step_as_their_mean(model, tmp_path, max_norm):
    before = copy.deepcopy(model.state_dict())
    gradients = mean_gradient(model, [batch(0, 4), batch(4, 8)])
    wrapper = dict(
        optimizer=dict(type='SGD', lr=LEARNING_RATE), accumulative_counts=2
    )
    if max_norm is not None:
        norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
        assert norm > max_norm
        # PyTorch's clipping adds 1e-6 to the norm.
        gradients = {
            name: gradient * (max_norm / (norm + 1e-6))
            for name, gradient in gradients.items()
        }
        wrapper['clip_grad'] = dict(max_norm=max_norm)
    _, steps, saved = train(
        model,
        tmp_path / 'run',
        steps=2,
        batch_size=4,
        optim_wrapper=wrapper,
    )
    assert all('loss_kd' in step for step in steps)
    check_step(before, saved['state_dict'], gradients)


def test_halves_accumulate_to_the_whole_batch(model):
    """KL, ranking and task terms are means over images of equal weight."""
    halves = mean_gradient(model, [batch(0, 4), batch(4, 8)])
    whole = mean_gradient(model, [batch(0, 8)])
    for name, gradient in whole.items():
        torch.testing.assert_close(
            halves[name],
            gradient,
            rtol=2**-18,
            atol=2**-18 * float(gradient.abs().max()),
        )
