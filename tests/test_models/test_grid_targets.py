"""Labels of cells are found by comparing scores, in either order."""

import pytest
import torch
from torch import nn

from mmrkkd.distillers.readers.method_tap import Call
from mmrkkd.distillers.readers.targets import GridLossTap, KnownOrder

# Two images with a level of four cells and one of two, three classes.
LEVELS = [4, 2]
ROWS = torch.arange(36.0).view(2, 6, 3)
LABELS = torch.tensor([[0, 3, 1, 3, 2, 3], [3, 3, 3, 0, 1, 2]])


class Loss(nn.Module):
    def forward(self, pred, target, weight=None, avg_factor=None):
        pass


class OtherNames(nn.Module):
    def forward(self, pred, target, label_weight, **kwargs):
        pass


def by_level(values):
    return [part.flatten(0, 1) for part in values.split(LEVELS, 1)]


def seen(*calls, loss=None, known=None):
    tap = GridLossTap()
    for call in calls:
        args = [each for each in call if not isinstance(each, dict)]
        kwargs = {k: v for each in call[len(args) :] for k, v in each.items()}
        tap.see(loss or Loss(), tuple(args), kwargs)
    return tap.targets(ROWS, LEVELS, known or KnownOrder())


def check(targets, order):
    assert targets.order == order
    assert torch.equal(targets.labels, LABELS.flatten())


def test_a_call_for_each_level():
    calls = zip(by_level(ROWS), by_level(LABELS))
    targets = seen(*calls)
    check(targets, 'by level')
    assert targets.counts.all()


def test_one_call_with_the_levels_one_after_another():
    check(
        seen((torch.cat(by_level(ROWS)), torch.cat(by_level(LABELS)))),
        'by level',
    )


def test_a_call_for_each_image():
    check(seen(*zip(ROWS, LABELS)), 'by image')


def test_one_call_with_the_images_one_after_another():
    check(seen((ROWS.flatten(0, 1), LABELS.flatten())), 'by image')


def test_one_image_says_nothing_of_several():
    """Its call fits both orders; the next batch's only one of them."""
    known = KnownOrder()
    tap = GridLossTap()
    tap.see(Loss(), (ROWS[0], LABELS[0]), {})
    targets = tap.targets(ROWS[:1], LEVELS, known)
    assert torch.equal(targets.labels, LABELS[0])
    call = ROWS.flatten(0, 1), LABELS.flatten()
    for _ in range(2):
        check(seen(call, known=known), 'by image')
    assert known.several == 'by image' and known.alone == 'by level'


def test_candidates_come_first():
    calls = [
        (ROWS[0, :2], LABELS[0, :2]),
        (ROWS.flatten(0, 1), LABELS.flatten()),
    ]
    check(seen(*calls), 'by image')


def test_names_of_arguments_do_not_matter():
    (first, second), labels = by_level(ROWS), by_level(LABELS)
    calls = [
        (dict(target=labels[0], pred=first),),
        (second, dict(avg_factor=2.0, target=labels[1])),
    ]
    check(seen(*calls), 'by level')


@pytest.mark.parametrize(
    'weight', [torch.tensor([1.0, 0, 2, 1]), torch.tensor([[1.0, 0], [0, 0]])]
)
def test_weights_say_what_counts(weight):
    rows, labels = by_level(ROWS), by_level(LABELS)
    if weight.dim() == 2:
        weight = weight.repeat(4, 1)
    else:
        weight = weight.repeat(2)
    calls = [
        (rows[0], labels[0], weight),
        (rows[1], labels[1], dict(weight=torch.ones(4))),
    ]
    targets = seen(*calls)
    check(targets, 'by level')
    counts = targets.counts.view(2, 6)
    expected = weight.reshape(8, -1).amax(1).view(2, 4) > 0
    assert torch.equal(counts[:, :4], expected)
    assert counts[:, 4:].all()


def test_weights_of_another_name():
    rows, labels = by_level(ROWS), by_level(LABELS)
    calls = [
        (rows[0], labels[0], torch.zeros(8)),
        (rows[1], labels[1], torch.ones(4)),
    ]
    counts = seen(*calls, loss=OtherNames()).counts.view(2, 6)
    assert not counts[:, :4].any() and counts[:, 4:].all()


def test_labels_with_a_quality():
    calls = [
        (rows, (labels, torch.rand(len(labels))))
        for rows, labels in zip(by_level(ROWS), by_level(LABELS))
    ]
    check(seen(*calls), 'by level')


def test_labels_as_scores_of_the_classes():
    quality = torch.zeros(12, 4)
    quality[torch.arange(12), LABELS.flatten()] = 0.5
    check(seen((ROWS.flatten(0, 1), quality[:, :3])), 'by image')


def test_positives_that_are_given_up_have_no_label():
    tap = GridLossTap()
    for call in zip(by_level(ROWS), by_level(LABELS)):
        tap.see(Loss(), call, {})
    kept = LABELS == 1
    tap.give_up([Call({}, (None, None, level)) for level in by_level(kept)])
    labels = tap.targets(ROWS, LEVELS, KnownOrder()).labels
    expected = [[-1, 3, 1, 3, -1, 3], [3, 3, 3, -1, 1, -1]]
    assert labels.view(2, 6).tolist() == expected


def test_half_precision_on_the_way_to_the_loss():
    rows = (ROWS / 7).bfloat16()
    tap = GridLossTap()
    tap.see(Loss(), (rows.flatten(0, 1).float(), LABELS.flatten()), {})
    assert tap.targets(rows, LEVELS, KnownOrder()).order == 'by image'


@pytest.mark.parametrize(
    'calls',
    [
        [],
        # Other scores, and cells left out.
        [(ROWS.flatten(0, 1) + 1, LABELS.flatten())],
        [(ROWS[0], LABELS[0])],
        # Positives alone, as YOLOX has it; maps; no labels.
        [(ROWS[LABELS < 3], LABELS[LABELS < 3])],
        [(ROWS, LABELS)],
        [(ROWS.flatten(0, 1), LABELS.flatten().float())],
    ],
)
def test_what_the_loss_did_not_see_has_no_labels(calls):
    targets = seen(*calls)
    assert targets.labels is None and targets.counts is None
    assert targets.order == 'none'


def test_a_module_without_targets_is_passed_over():
    assert seen((ROWS.flatten(0, 1),), loss=nn.Identity()).labels is None


def test_a_known_order_is_confirmed_a_step_later(caplog):
    known = KnownOrder()
    labels = LABELS.flatten()
    check(seen((ROWS.flatten(0, 1), labels), known=known), 'by image')
    assert known.several == 'by image'
    # Other scores, taken for the same in this step.
    check(seen((1 + ROWS.flatten(0, 1), labels), known=known), 'by image')
    # The next one finds out, compares again, and so do all that follow.
    assert seen((1 + ROWS.flatten(0, 1), labels), known=known).labels is None
    check(seen((ROWS.flatten(0, 1), labels), known=known), 'by image')
    assert known.several is None


def test_calls_that_no_longer_fit_the_known_order_are_compared():
    known = KnownOrder()
    check(
        seen((ROWS.flatten(0, 1), LABELS.flatten()), known=known), 'by image'
    )
    calls = zip(by_level(ROWS), by_level(LABELS))
    check(seen(*calls, known=known), 'by level')


def test_scores_that_are_nan_are_themselves(caplog):
    """It is for the guard of the losses to say so, not for the labels."""
    rows = ROWS.clone()
    rows[0, 0, 0] = torch.nan
    for known in (KnownOrder(), KnownOrder()):
        for _ in range(3):
            tap = GridLossTap()
            tap.see(Loss(), (rows.flatten(0, 1), LABELS.flatten()), {})
            check(tap.targets(rows, LEVELS, known), 'by image')
    assert known.several == 'by image'
    assert not caplog.records
