"""Logits of several students, put side by side from what was scored."""

import numpy as np
import pytest

from mmrkkd.evaluation.image_scores import ImageScores, Scored
from mmrkkd.report.matched_logits import matched_logits

NAMES = ['cat', 'dog']


def image(path, student, teacher, labels, boxes=None, on_objects=True):
    """One image; probabilities and tau are not looked at."""
    student, teacher = np.array(student, float), np.array(teacher, float)
    unused = np.zeros_like(student)
    return ImageScores(
        path,
        unused,
        unused,
        (student, teacher),
        unused[:, 0],
        boxes,
        labels,
        on_objects,
        {},
    )


def scored(*images, names=NAMES, activation='softmax'):
    images = {each.path: each for each in images}
    pictures = {path: f'/data/{path}' for path in images}
    return Scored(names, (), pictures, images, {}, True, activation)


def classified(student, teacher=((1, 0), (0, 1)), **options):
    """Two images, of a dog and of something that is not compared."""
    return scored(
        image('a', student[:1], teacher[:1], ['dog']),
        image('b', student[1:], teacher[1:], ['bird']),
        **options,
    )


def test_students_of_one_teacher_stand_side_by_side():
    found = matched_logits(
        dict(kd=classified([[2, 0], [3, 1]]), lra=classified([[5, 4], [0, 0]]))
    )
    assert found.teacher.tolist() == [[1, 0], [0, 1]]
    assert found.students['kd'].tolist() == [[2, 0], [3, 1]]
    assert found.students['lra'].tolist() == [[5, 4], [0, 0]]
    assert list(found.models) == ['teacher', 'kd', 'lra']
    assert found.labels.tolist() == [1, -1]
    assert found.samples == ['a', 'b'] and found.names == NAMES
    assert found.pictures['b'] == '/data/b' and found.boxes is None


def test_boxes_of_an_image_are_samples_of_their_own():
    boxes = np.array([[0, 0, 4, 4], [1, 1, 2, 3.0]])
    empty = np.zeros((0, 2))
    found = matched_logits(
        dict(
            kd=scored(
                image('a', [[1, 2], [3, 4]], [[5, 6], [7, 8]], NAMES, boxes),
                image('b', empty, empty, [], np.zeros((0, 4))),
                image('c', [[0, 1]], [[1, 0]], ['cat'], boxes[:1]),
                activation='sigmoid',
            )
        )
    )
    assert found.samples == ['a', 'a', 'c']
    assert found.labels.tolist() == [0, 1, 0]
    assert found.boxes.tolist() == [*boxes.tolist(), boxes[0].tolist()]
    assert found.activation == 'sigmoid'


def test_places_that_are_no_objects_have_no_class_and_no_box():
    box = np.array([[0, 0, 4, 4.0]])
    cells = image('a', [[1, 2]] * 3, [[1, 2]] * 3, ['cat'], box, False)
    found = matched_logits(dict(kd=scored(cells)))
    assert found.labels.tolist() == [-1] * 3 and found.boxes is None


def test_a_student_that_is_called_as_the_teacher_stays_apart():
    found = matched_logits(dict(teacher=classified([[2, 0], [3, 1]])))
    assert list(found.models) == ['teacher (teaching)', 'teacher']
    assert found.models['teacher'].tolist() == [[2, 0], [3, 1]]


def test_what_cannot_stand_side_by_side_is_refused():
    student = [[2, 0], [3, 1]]
    one = classified(student)
    other = classified(student, names=['cat', 'cow'])
    with pytest.raises(ValueError, match='kd and lra cannot be drawn'):
        matched_logits(dict(kd=one, lra=other))
    fewer = scored(image('a', [[1, 2]], [[1, 0]], ['cat']))
    with pytest.raises(ValueError, match='2 classes, 1 samples; make a fig'):
        matched_logits(dict(kd=one, lra=fewer))
    other = classified(student, teacher=((1, 0.2), (0, 1)))
    with pytest.raises(ValueError, match='kd and lra have unlike teachers'):
        matched_logits(dict(kd=one, lra=other))
    # A teacher in bfloat16 is not the same to the last digit.
    other = classified(student, teacher=((1.001, 0), (0, 1)))
    assert len(matched_logits(dict(kd=one, lra=other)).students) == 2


def test_images_without_an_object_are_refused():
    empty = np.zeros((0, 2))
    bare = image('a', empty, empty, [], np.zeros((0, 4)))
    with pytest.raises(ValueError, match='1 scored images hold nothing'):
        matched_logits(dict(kd=scored(bare)))
