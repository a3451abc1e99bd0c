"""Weights fit whatever tool put a prefix before their names."""

import copy

import pytest
import torch
from torch import nn

from mmrkkd.distillers import teacher as teacher_module
from mmrkkd.distillers.teacher import load_strictly


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.fixture
def weights(model):
    other = copy.deepcopy(model)
    nn.init.constant_(other[0].weight, 7.0)
    return other.state_dict()


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(
        teacher_module, 'print_log', lambda text, **_: lines.append(text)
    )
    return lines


def renamed(weights, prefix):
    return {prefix + key: value for key, value in weights.items()}


@pytest.mark.parametrize(
    'prefix',
    [
        'architecture.',
        'student.',
        'model.',
        '_orig_mod.',
        'module.',
        'ema.',
        'module.model.',
        'model._orig_mod.',
    ],
)
def test_a_prefix_that_all_keys_share_is_taken_off(
    model, weights, log, prefix
):
    load_strictly(model, renamed(weights, prefix), 'x.pth')
    assert (model[0].weight == 7).all()
    assert f'x.pth: {prefix!r} was taken off' in log[0]


def test_compiled_parts_inside_a_model(model, weights, log):
    weights = {
        key.replace('0.', '0._orig_mod.'): value
        for key, value in weights.items()
    }
    load_strictly(model, weights, 'x.pth')
    assert (model[0].weight == 7).all()
    assert "'_orig_mod.' was taken off" in log[0]


def test_a_model_that_is_compiled_itself_keeps_its_names(log):
    class Compiled(nn.Module):
        def __init__(self):
            super().__init__()
            self._orig_mod = nn.Linear(2, 2)

    load_strictly(Compiled(), Compiled().state_dict(), 'x.pth')
    assert log == []


def test_what_is_wrong_behind_a_prefix_is_listed_without_it(model, weights):
    del weights['1.bias']
    weights['0.bias'] = torch.ones(4)
    with pytest.raises(ValueError) as error:
        load_strictly(model, renamed(weights, 'model.'), 'x.pth')
    text = str(error.value)
    assert 'Missing keys (1):\n  1.bias' in text
    assert '0.bias: the model has (3,), the checkpoint (4,)' in text
    assert 'does not have' not in text


def test_two_models_in_one_file_are_named_and_none_is_guessed(model, weights):
    both = renamed(weights, 'architecture.') | renamed(weights, 'teacher.')
    before = model[0].weight.clone()
    with pytest.raises(ValueError) as error:
        load_strictly(model, both, 'x.pth')
    assert torch.equal(model[0].weight, before)
    text = str(error.value)
    assert "behind 'architecture.' (7 of 7), 'teacher.' (7 of 7)" in text
    command = text.splitlines()[-1].strip()
    assert command == (
        'torch.save({key[13:]: value for key, value in weights.items() if '
        "key.startswith('architecture.')}, 'teacher.pth')"
    )
    # What the message tells users to type.
    kept = eval(
        command.removeprefix('torch.save(').rpartition(',')[0],
        dict(weights=both),
    )
    load_strictly(model, kept, 'x.pth')
    assert (model[0].weight == 7).all()


def test_no_prefix_no_advice(model, weights):
    del weights['0.weight']
    with pytest.raises(ValueError) as error:
        load_strictly(model, weights, 'x.pth')
    assert str(error.value).endswith('config and checkpoint belong together.')
