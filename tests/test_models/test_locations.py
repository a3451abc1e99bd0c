"""Which samples of a match count, and what a sum is divided by."""

import math

import pytest
import torch

from mmrkkd.distillers.class_map import ClassMap
from mmrkkd.distillers.readers import Match, Scores
from mmrkkd.distillers.readers.locations import (
    confidence,
    located,
    positives,
)
from mmrkkd.losses.placement import Placement

SIGMOID, SOFTMAX = Scores(2, 'sigmoid'), Scores(3, background=True)


def logits(*probabilities):
    """(N, 2), the first class has these, the second less."""
    first = torch.tensor(probabilities).double().logit()
    return torch.stack([first, first - 1], 1)


def match(*probabilities, **options):
    teacher = logits(*probabilities)
    options.setdefault('labels', None)
    return Match(torch.zeros_like(teacher), teacher, **options)


def weights(samples, scores=SIGMOID, **placement):
    return located(samples, scores, Placement(**placement))


def test_confidence_is_the_highest_probability():
    torch.testing.assert_close(
        confidence(logits(0.25, 0.75), SIGMOID).tolist(), [0.25, 0.75]
    )
    # softmax(log 1, log 2, log 5): the background's 5/8 does not count.
    teacher = torch.tensor([[1.0, 2, 5]]).double().log()
    torch.testing.assert_close(confidence(teacher, SOFTMAX).item(), 2 / 8)


def test_confidence_is_that_of_the_classes_that_are_compared():
    """The teacher is surest of its class 0, which the student has not."""
    some = ClassMap((0, 1), (2, 1))
    teacher = torch.tensor([[4.0, 1, 2]]).double()
    sure = confidence(teacher, Scores(2, 'sigmoid'), some)
    torch.testing.assert_close(sure.item(), 1 / (1 + math.exp(-2)))
    # softmax(log 5, log 1, log 2) of its classes and the background's log 2.
    teacher = torch.tensor([[5.0, 1, 2, 2]]).double().log()
    some = ClassMap((0, 1, 2), (2, 1, 3))
    sure = confidence(teacher, Scores(3, background=True), some)
    torch.testing.assert_close(sure.item(), 2 / 10)


@pytest.mark.parametrize('locations', ['confidence', 'top'])
def test_rows_are_weighted_by_the_classes_that_are_compared(locations):
    teacher = torch.tensor([[9.0, 0.0], [-9.0, 2.0]])
    samples = Match(torch.zeros(2, 1), teacher, None)
    placement = Placement(locations, top=0.5)
    some = ClassMap((0,), (1,))
    found = located(samples, Scores(1, 'sigmoid'), placement, some)
    expected = teacher[:, 1].sigmoid()
    if locations == 'top':
        expected[0] = 0.0
    torch.testing.assert_close(found, expected)


def test_all_are_those_that_the_head_counts():
    assert weights(match(0.1, 0.2), locations='all') is None
    counts = torch.tensor([True, False])
    samples = match(0.1, 0.2, counts=counts)
    assert weights(samples, locations='all').tolist() == [1, 0]


def test_foreground_is_what_has_a_class():
    samples = match(*[0.5] * 5, labels=torch.tensor([0, 1, 2, -1, 1]))
    assert weights(samples, locations='foreground').tolist() == [1, 1, 0, 0, 1]


def test_foreground_without_labels_says_what_to_do():
    message = "locations='foreground' needs labels.* Use .*'top'"
    with pytest.raises(RuntimeError, match=message):
        weights(match(0.1), locations='foreground')


def test_confidence_of_what_counts():
    samples = match(0.25, 0.75, counts=torch.tensor([True, False]))
    expected = torch.tensor([0.25, 0]).double()
    torch.testing.assert_close(
        weights(samples, locations='confidence'), expected
    )


def test_top_is_of_each_image():
    samples = match(0.9, 0.8, 0.7, 0.6, 0.1, 0.2, 0.3, 0.4, images=2)
    expected = torch.tensor([0.9, 0.8, 0, 0, 0, 0, 0.3, 0.4]).double()
    torch.testing.assert_close(
        weights(samples, locations='top', top=0.5), expected
    )
    # A share of less than one sample is one.
    assert (weights(samples, locations='top', top=0.01) > 0).sum() == 2


def test_top_leaves_out_what_does_not_count():
    samples = match(0.9, 0.8, counts=torch.tensor([False, True]))
    expected = torch.tensor([0, 0.8]).double()
    torch.testing.assert_close(
        weights(samples, locations='top', top=0.5), expected
    )


def test_without_locations_it_is_the_readers_choice():
    chosen = torch.tensor([3.0, 4.0])
    assert weights(match(0.9, 0.8, weight=chosen)) is chosen


def test_positives_are_the_labels_that_are_classes():
    labels = torch.tensor([0, 1, 2, -1, 1, 0])
    assert positives(match(*[0.9] * 6, labels=labels), SIGMOID) == 4
    nothing = torch.tensor([2, -1])
    assert positives(match(0.9, 0.9, labels=nothing), SIGMOID) == 1


def test_without_labels_it_is_the_teachers_mass():
    # 0.04 is below 0.05.
    samples = match(0.9, 0.75, 0.04, 0.5)
    assert math.isclose(positives(samples, SIGMOID), 2.15, rel_tol=1e-6)


def test_positives_are_the_mean_over_the_processes(one_process, monkeypatch):
    # This process has 2 of them, another one 6.
    monkeypatch.setattr('torch.distributed.all_reduce', lambda x: x.add_(6))
    monkeypatch.setattr('torch.distributed.get_world_size', lambda: 2)
    samples = match(0.9, 0.9, labels=torch.tensor([0, 1]))
    assert positives(samples, SIGMOID) == 4
