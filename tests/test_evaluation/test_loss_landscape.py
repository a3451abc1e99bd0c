"""The loss around some weights, where it is known."""

import math

import pytest
import torch
from torch import nn

from mmrkkd.evaluation.grid_file import GridFile, digest, fill
from mmrkkd.evaluation.loss_landscape import (
    loss_of_model,
    loss_rows,
    places,
    random_directions,
    restored,
)

# Two filters of lengths 5 and 13, and a bias.
CENTRE = dict(
    weight=torch.tensor([[3.0, 4.0], [5.0, 12.0]]), bias=torch.tensor([7.0])
)
SETTINGS = dict(seed=0, span=1.0, points=5)


def squared_distance(state):
    """From the centre: a bowl whose least value is 0."""
    return dict(
        bowl=sum(
            float((state[name] - CENTRE[name]).square().sum())
            for name in CENTRE
        )
    )


def rows_of(loss, weights, seed=0, span=1.0, points=5, start=0):
    directions = random_directions(weights, seed)
    coordinates = places(span, points)
    return list(loss_rows(loss, weights, directions, coordinates, start))


def small_model():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)
    )


def test_a_bowl_is_as_steep_as_the_weights_are_long():
    rows = rows_of(squared_distance, CENTRE)
    first, second = random_directions(CENTRE, 0)
    # Both directions are as long as the weights: 25 + 169 = 194; what is
    # left is the angle between them.
    cross = float((first['weight'] * second['weight']).sum())
    for y, row in zip((-1, -0.5, 0, 0.5, 1), rows):
        for x, point in zip((-1, -0.5, 0, 0.5, 1), row):
            expected = 194 * (x * x + y * y) + 2 * x * y * cross
            assert point['bowl'] == pytest.approx(expected, rel=1e-5)
    assert abs(cross) < 194


@pytest.mark.parametrize('shape', [(4, 3, 3, 3), (6, 10), (5, 1, 2)])
def test_filters_of_a_direction_are_as_long_as_those_of_the_weights(shape):
    torch.manual_seed(0)
    # One filter is a thousand times longer than the next, one is 0.
    lengths = 1000.0 ** torch.arange(shape[0])
    lengths[1] = 0
    weight = torch.randn(shape) * lengths.view(-1, *[1] * (len(shape) - 1))
    for direction in random_directions(dict(weight=weight), 5):
        torch.testing.assert_close(
            direction['weight'].flatten(1).norm(dim=1),
            weight.flatten(1).norm(dim=1),
        )


def test_biases_and_normalisations_stay_where_they_are():
    weights = dict(small_model().named_parameters())
    for direction in random_directions(weights, 0):
        moved = {name for name, each in direction.items() if each.any()}
        assert moved == {'0.weight', '3.weight'}


def test_students_get_the_same_numbers_each_scaled_to_its_own_filters():
    other = {name: 3 * value for name, value in CENTRE.items()}
    for own, scaled in zip(
        random_directions(CENTRE, 1), random_directions(other, 1)
    ):
        torch.testing.assert_close(scaled['weight'], 3 * own['weight'])
    elsewhere, _ = random_directions(CENTRE, 2)
    assert not torch.equal(
        elsewhere['weight'], random_directions(CENTRE, 1)[0]['weight']
    )


def test_directions_are_not_the_first_weights_of_that_seed():
    torch.manual_seed(0)
    weights = dict(w=torch.randn(8, 50))
    for direction in random_directions(weights, 0):
        cosine = torch.cosine_similarity(direction['w'], weights['w'], dim=1)
        assert cosine.abs().max() < 0.7


def test_the_two_directions_differ():
    first, second = random_directions(dict(w=torch.randn(8, 50)), 0)
    cosine = torch.cosine_similarity(first['w'], second['w'], dim=1)
    # Of 50 normal numbers it is about 0 +- 0.14.
    assert cosine.abs().max() < 0.7


def test_a_rescaled_network_looks_the_same():
    """ReLU: filters times 10, what comes behind them divided by 10."""
    torch.manual_seed(0)
    one, other = (
        nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 1))
        for _ in range(2)
    )
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        other[0].weight *= 10
        other[2].weight /= 10
    inputs = torch.randn(16, 4)
    grids = []
    for model in (one, other):
        loss = loss_of_model(
            model, lambda m=model: dict(a=float(m(inputs).square().mean()))
        )
        with restored(model) as weights:
            grids.append(
                torch.tensor(
                    [[p['a'] for p in row] for row in rows_of(loss, weights)]
                )
            )
    torch.testing.assert_close(*grids, rtol=1e-4, atol=1e-6)


def test_the_middle_is_the_model_itself():
    model = small_model().eval()
    inputs = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        before = float(model(inputs).sum())
    loss = loss_of_model(model, lambda: dict(sum=float(model(inputs).sum())))
    with restored(model) as weights:
        rows = rows_of(loss, weights, points=3)
    assert rows[1][1]['sum'] == before
    assert len({point['sum'] for row in rows for point in row}) == 9


@pytest.mark.parametrize('fails', [False, True])
def test_a_model_is_given_back_as_it_was(fails):
    model = small_model()
    model[1].eval()
    model[1].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    calls = []

    def measure():
        calls.append(1)
        model.train()
        # Running statistics move in this mode.
        value = float(model(torch.randn(2, 3, 4, 4)).sum())
        if fails and len(calls) == 3:
            raise RuntimeError('no more')
        return dict(sum=value)

    def run():
        with restored(model) as weights:
            rows_of(loss_of_model(model, measure), weights, points=3)

    if fails:
        with pytest.raises(RuntimeError, match='no more'):
            run()
    else:
        run()
    assert len(calls) == (3 if fails else 9)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert model.training and model[0].training and not model[1].training


def test_an_interrupted_grid_goes_on_bit_for_bit(tmp_path, capsys):
    torch.manual_seed(0)
    weights = dict(w=torch.randn(3, 7), b=torch.randn(3))
    calls = []

    def loss(state):
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        value = torch.sin(state['w']).sum() / state['w'].abs().sum()
        return dict(a=float(value), b=float(state['b'].sum()))

    whole = rows_of(loss, weights, points=3)
    calls[:] = [1] * 8
    path = tmp_path / 'deep' / 'grid.json'
    directions = random_directions(weights, 0)
    with pytest.raises(KeyboardInterrupt):
        fill(
            GridFile(path, SETTINGS),
            loss,
            weights,
            directions,
            places(1.0, 3),
            'a',
        )
    file = GridFile(path, SETTINGS)
    assert len(file) == 1
    fill(file, loss, weights, directions, places(1.0, 3), 'a')
    # 8 made up, 3 + 2 before the interrupt, 6 after it.
    assert len(calls) == 19
    assert '9/9' in capsys.readouterr().err
    assert file.rows == GridFile(path, SETTINGS).rows == whole


def test_weights_are_known_by_their_digest():
    other = dict(CENTRE, bias=CENTRE['bias'] + 1e-6)
    renamed = {name[::-1]: value for name, value in CENTRE.items()}
    again = {name: value.clone() for name, value in CENTRE.items()}
    assert digest(CENTRE) == digest(again)
    assert len({digest(each) for each in (CENTRE, other, renamed)}) == 3


def test_losses_that_are_not_finite_are_gaps(tmp_path):
    file = GridFile(tmp_path / 'grid.json', SETTINGS)
    file.add([dict(a=math.inf), dict(a=math.nan), dict(a=1.5)])
    assert 'null' in file.path.read_text()
    for each in (file, GridFile(file.path, SETTINGS)):
        ((one, other, last),) = each.rows
        assert math.isnan(one['a']) and math.isnan(other['a'])
        assert last == dict(a=1.5)


def test_a_grid_of_other_settings_is_refused_and_left(tmp_path):
    file = GridFile(tmp_path / 'grid.json', SETTINGS)
    file.add([dict(a=1.0)])
    before = file.path.read_bytes()
    with pytest.raises(
        ValueError,
        match=r'grid.json is a grid of other settings, they differ in seed '
        r'\(0 there, 1 now\), images \(None there, 5 now\): give those',
    ):
        GridFile(file.path, dict(SETTINGS, seed=1, images=5))
    assert file.path.read_bytes() == before


@pytest.mark.parametrize('text', ['', '[]', '{"rows": []}', '{"settings"'])
def test_a_file_that_is_no_grid_is_named(text, tmp_path):
    path = tmp_path / 'grid.json'
    path.write_text(text)
    with pytest.raises(ValueError, match='grid.json is no grid of losses'):
        GridFile(path, SETTINGS)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ('span', 'points', 'message'),
    [
        (0.0, 3, 'span must be above 0 and finite, got 0.0'),
        (math.inf, 3, 'span must be above 0 and finite, got inf'),
        (1.0, 4, 'points must be odd.*got 4'),
        (1.0, 1, 'at least 3, got 1'),
    ],
)
def test_bad_places_are_refused(span, points, message):
    with pytest.raises(ValueError, match=message):
        places(span, points)


def test_places_are_even_and_have_a_middle():
    assert places(0.5, 5) == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert places(1.0, 51)[25] == 0.0
