"""Classes are compared by name."""

import pytest
import torch
from mmdet.datasets import CocoPanopticDataset
from torch import nn

from mmrkkd.distillers.class_map import ClassMap, fewest_shared, match_classes
from mmrkkd.distillers.class_names import metainfo_classes
from mmrkkd.distillers.frozen_teacher import FrozenTeacher
from mmrkkd.losses import (
    BinaryKDLoss,
    BinaryKLLoss,
    BoxRankLoss,
    FitNetLoss,
    KDLoss,
    KendallLoss,
    LRALoss,
    RankKDLoss,
    RankMimicLoss,
)

STUDENT = ['cat', 'dog', 'bird']


def test_same_names_need_no_change():
    assert match_classes(STUDENT, tuple(STUDENT), 4, 4, True) == ClassMap()


def test_another_order_is_permuted():
    class_map = match_classes(STUDENT, ['bird', 'cat', 'dog'], 4, 4, True)
    teacher = torch.tensor([[30.0, 10.0, 20.0, 0.0]])
    assert class_map.select_teacher(teacher).tolist() == [[10, 20, 30, 0]]
    student = torch.tensor([[1.0, 2.0, 3.0, 0.0]])
    assert class_map.select_student(student).tolist() == [[1, 2, 3, 0]]
    labels, known = class_map.select_labels(torch.tensor([0, 2, 3]), 4)
    assert labels.tolist() == [0, 2, 3]
    assert known.all()


def test_shared_names_only():
    teacher_names = ['fish', 'bird', 'cat']
    class_map = match_classes(
        STUDENT, teacher_names, 4, 4, True, mode='shared'
    )
    # Shared, in the student's order: cat, bird, background.
    student = torch.tensor([[1.0, 2.0, 3.0, 0.0]])
    assert class_map.select_student(student).tolist() == [[1, 3, 0]]
    teacher = torch.tensor([[5.0, 30.0, 10.0, 0.0]])
    assert class_map.select_teacher(teacher).tolist() == [[10, 30, 0]]
    labels, known = class_map.select_labels(torch.tensor([0, 1, 2, 3]), 4)
    assert known.tolist() == [True, False, True, True]
    assert labels[known].tolist() == [0, 1, 2]


def stated(names, things=None):
    return metainfo_classes('x', dict(classes=names, thing_classes=things))


def test_of_a_panoptic_data_set_a_box_head_knows_the_things():
    meta = CocoPanopticDataset.METAINFO
    both, things = metainfo_classes('x', meta), meta['thing_classes']
    assert len(both) == 133
    for student in (both, things):
        for teacher in (both, things, stated(meta['classes'])):
            assert match_classes(student, teacher, 81, 81, True) == ClassMap()
    # A head of all classes keeps its names, and so do others' things.
    assert match_classes(both, both[::-1], 134, 134, True).teacher[0] == 132
    swapped = stated(meta['classes'], things[::-1])
    with pytest.raises(ValueError, match='student has 81 .* 133 class names'):
        match_classes(swapped, things, 81, 81, True)


def test_names_that_are_given_are_not_cut():
    more = [*STUDENT, 'sky']
    with pytest.raises(ValueError, match='the teacher has 4 channels'):
        match_classes(stated(more, STUDENT), more, 4, 4, True)


def test_a_frozen_teacher_knows_which_are_things():
    teacher = FrozenTeacher(
        nn.Linear(1, 1), stated([*STUDENT, 'sky'], STUDENT), 'x'
    )
    assert match_classes(STUDENT, teacher.classes, 4, 4, True) == ClassMap()


def test_gradient_passes_the_selection():
    class_map = match_classes(STUDENT, ['bird', 'cat'], 3, 2, mode='shared')
    student = torch.ones(1, 3, requires_grad=True)
    class_map.select_student(student).sum().backward()
    assert student.grad.tolist() == [[1, 0, 1]]


def test_unknown_names_are_matched_by_position():
    assert match_classes(None, STUDENT, 4, 4, True) == ClassMap()
    assert match_classes(STUDENT, None, 4, 4, True) == ClassMap()


def test_names_that_are_given_fit_their_head_whatever_the_other_side_knows():
    message = 'the student has 4 channels, background included, but 2 class'
    with pytest.raises(ValueError, match=message):
        match_classes(STUDENT[:2], None, 4, 4, True)
    message = r'teacher has 5 channels but 3 .*correct teacher.classes=\[\.'
    for mode in ('same', 'shared'):
        with pytest.raises(ValueError, match=message):
            match_classes(None, STUDENT, 5, 5, mode=mode)


def test_a_data_set_may_know_more_names_than_a_head_or_fewer():
    # MMDetection 2's checkpoints do not say which of these are things.
    both = stated(CocoPanopticDataset.METAINFO['classes'])
    assert match_classes(None, both, 81, 81, True) == ClassMap()
    # Images of three classes, for a head of ImageNet's thousand.
    assert match_classes(stated(STUDENT), None, 1000, 1000) == ClassMap()


@pytest.mark.parametrize(
    'arguments,message',
    [
        (
            (None, STUDENT, 81, 4, True),
            'student has 81 channels, the teacher 4',
        ),
        ((STUDENT, None, 4, 81, True), 'class names of the teacher are not'),
        (
            (STUDENT, ['cat', 'dog', 'fish'], 4, 4, True),
            r"(?s)Only the student has \(1\): 'bird'.*teacher has \(1\): "
            r"'fish'.*classes='shared'.* 2 names",
        ),
        ((STUDENT, ['cat', 'dog'], 4, 3, True), r'teacher has \(0\): none'),
        (
            (STUDENT, STUDENT, 3, 4, True),
            'student has 3 channels, background included, but 3 class',
        ),
        ((STUDENT, STUDENT, 3, 4), 'teacher has 4 channels but 3 class names'),
        (
            (STUDENT, ['fish', 'cat'], 3, 2, False, 'shared'),
            r"share 1 of their classes \('cat'\), and the losses must have at "
            'least 2: a single class has no order to rank',
        ),
        (
            (STUDENT, ['fish'], 4, 2, True, 'shared', 1),
            r'share 0 of their classes \(none\), .* at least 1; student',
        ),
        (('person', ['person'], 7, 2, True), r"\('person',\)"),
        ((['person'], 'person', 2, 7, True), r"\('person',\)"),
        (
            (['a', 'a', 'b'], ['a', 'b', 'b'], 3, 3),
            r"student has \(1\): 'a'\nOnly the teacher has \(1\): 'b'",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        match_classes(*arguments)


# -- repeated names ----------------------------------------------------------

# ImageNet's list has 'crane' and 'maillot' twice.
REPEATED = ['crane', 'fish', 'crane', 'dog']


@pytest.mark.parametrize('mode', ['same', 'shared'])
def test_equal_lists_match_whatever_they_hold(mode):
    assert match_classes(REPEATED, tuple(REPEATED), 4, 4, mode=mode) == (
        ClassMap()
    )


@pytest.mark.parametrize('mode', ['same', 'shared'])
@pytest.mark.parametrize('swaps_sides', [False, True])
def test_repeated_names_in_another_order_are_ambiguous(mode, swaps_sides):
    lists = [REPEATED, REPEATED[::-1]]
    with pytest.raises(
        ValueError, match="'crane' stands 2 times .* student and 2 times"
    ):
        match_classes(*lists[:: -1 if swaps_sides else 1], 4, 4, mode=mode)


def test_a_name_repeated_on_one_side_is_ambiguous():
    with pytest.raises(
        ValueError, match="'crane' stands 2 times .* student and 1 times"
    ):
        match_classes(REPEATED, ['crane', 'dog'], 4, 2, mode='shared')


def test_repeated_names_of_one_side_alone_are_no_trouble():
    class_map = match_classes(REPEATED, ['dog', 'fish'], 4, 2, mode='shared')
    assert class_map == ClassMap((1, 3), (1, 0))


# -- one shared class --------------------------------------------------------


def test_one_shared_class_beside_the_background_will_do_without_ranking():
    class_map = match_classes(
        STUDENT, ['fish', 'bird'], 4, 3, True, mode='shared', min_shared=1
    )
    assert class_map == ClassMap((2, 3), (1, 2))


@pytest.mark.parametrize(
    'loss,background,activation,fewest,needed_by',
    [
        (KDLoss(), True, 'softmax', 1, 'the losses'),
        (KDLoss(), False, 'softmax', 2, 'the softmax of the head'),
        # At objects alone their classes exclude each other.
        (KDLoss(), False, 'sigmoid', 2, 'KDLoss'),
        (BinaryKDLoss(), False, 'sigmoid', 1, 'the losses'),
        (RankMimicLoss(), False, 'sigmoid', 1, 'the losses'),
        (BoxRankLoss(), True, 'softmax', 1, 'the losses'),
        (KendallLoss(), True, 'softmax', 2, 'KendallLoss'),
        (RankKDLoss(), True, 'softmax', 2, 'RankKDLoss'),
        (LRALoss(), True, 'softmax', 2, 'LRALoss'),
        (KendallLoss(), False, 'sigmoid', 2, 'KendallLoss'),
        (FitNetLoss('neck[0]'), False, 'sigmoid', 1, 'the losses'),
    ],
)
def test_how_many_names_losses_need(
    loss, background, activation, fewest, needed_by
):
    losses = nn.ModuleList([BinaryKLLoss(), loss])
    found = fewest_shared(losses, background, activation)
    assert found == (fewest, needed_by)


# -- which samples are compared ----------------------------------------------

# Of cat, dog, bird and background the teacher knows cat and bird.
SHARED = ClassMap((0, 2, 3), (1, 0, 2))


def test_samples_of_unknown_classes_weigh_nothing():
    labels, weight = SHARED.select_samples(
        torch.tensor([0, 1, 2, 3]), torch.tensor([1.0, 1.0, 0.5, 1.0]), 4
    )
    assert weight.tolist() == [1, 0, 0.5, 1]
    assert labels[weight > 0].tolist() == [0, 1, 2]
    _, weight = SHARED.select_samples(torch.tensor([1, 0]), None, 4)
    assert weight.tolist() == [0, 1]


def test_mixed_samples_count_as_far_as_their_classes_are_known():
    shares = torch.tensor(
        [
            [0.0, 1.0, 0.0, 0.0],
            [0.5, 0.5, 0.0, 0.0],
            [0.75, 0.0, 0.25, 0.0],
            # Several labels, and none.
            [1.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0],
        ]
    )
    labels, weight = SHARED.select_samples(shares, None, 4)
    assert labels is None
    assert weight.tolist() == [0, 0.5, 1, 0.5, 0]
    _, weight = SHARED.select_samples(shares, torch.full((5,), 2.0), 4)
    assert weight.tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize('weight', [None, torch.ones(2)])
def test_nothing_is_left_out_where_nothing_is_known(weight):
    assert SHARED.select_samples(None, weight, 4) == (None, weight)


@pytest.mark.parametrize('class_map', [ClassMap(), ClassMap((1, 0), (0, 1))])
def test_where_every_class_is_compared_all_samples_stay(class_map):
    labels, weight = class_map.select_samples(torch.tensor([0, 1]), None, 2)
    assert weight is None
    order = list(class_map.student or (0, 1))
    assert [order[label] for label in labels] == [0, 1]
    assert class_map.select_samples(torch.eye(2), None, 2) == (None, None)


def test_a_background_that_is_no_channel_stays_one():
    # Sigmoid heads call it by the number of classes; -1 is no label at all.
    class_map = ClassMap((0, 2), (1, 0))
    labels = torch.tensor([0, 1, 2, 3, -1])
    selected, known = class_map.select_labels(labels, 3)
    assert selected.tolist() == [0, 0, 1, 2, -1]
    assert known.tolist() == [True, False, True, True, True]
