"""Classes are compared by name."""

import pytest
import torch

from mmrkkd.distillers.class_map import ClassMap, match_classes

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


def test_gradient_passes_the_selection():
    class_map = match_classes(STUDENT, ['bird', 'cat'], 3, 2, mode='shared')
    student = torch.ones(1, 3, requires_grad=True)
    class_map.select_student(student).sum().backward()
    assert student.grad.tolist() == [[1, 0, 1]]


def test_unknown_names_are_matched_by_position():
    assert match_classes(None, STUDENT, 4, 4, True) == ClassMap()
    assert match_classes(STUDENT, None, 4, 4, True) == ClassMap()


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
        ((['a', 'a'], STUDENT, 2, 3), r'2 class names \(1 different\)'),
        ((STUDENT, ['fish', 'cat'], 3, 2, False, 'shared'), 'share 1 classes'),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        match_classes(*arguments)
