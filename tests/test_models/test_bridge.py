"""The teacher must see what its own preprocessor would have made."""

import copy

import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmpretrain.models.utils import ClsDataPreprocessor

from mmrkkd.distillers.bridge import PreprocessBridge

IMAGENET = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
CAFFE = dict(
    mean=[103.530, 116.280, 123.675],
    std=[1.0, 1.0, 1.0],
    bgr_to_rgb=False,
    pad_size_divisor=32,
)
RAW = dict(pad_size_divisor=32)


def both(student, teacher, batch):
    student = DetDataPreprocessor(**student)
    teacher = DetDataPreprocessor(**teacher)
    data = student(batch(), True)
    bridge = PreprocessBridge(student, teacher)
    converted = bridge(data['inputs'], data['data_samples'])
    expected = teacher(batch(), True)['inputs']
    return bridge, data['inputs'], converted, expected


@pytest.mark.parametrize(
    'teacher',
    [
        CAFFE,
        RAW,
        dict(CAFFE, bgr_to_rgb=True),
        dict(IMAGENET, bgr_to_rgb=False),
        dict(IMAGENET, std=[1.0, 2.0, 3.0]),
        dict(CAFFE, pad_value=7),
        dict(CAFFE, pad_size_divisor=1),
        dict(CAFFE, pad_size_divisor=64),
        dict(IMAGENET, pad_size_divisor=48),
    ],
)
@pytest.mark.parametrize('student', [IMAGENET, CAFFE, RAW])
def test_equals_the_teachers_own_preprocessor(student, teacher, batch):
    _, _, converted, expected = both(student, teacher, batch)
    assert converted.shape == expected.shape
    # Values up to 255 go through three roundings of float32.
    torch.testing.assert_close(
        converted, expected, rtol=0, atol=4 * 255 * 2**-23
    )


def test_padding_is_exact(batch):
    _, _, converted, expected = both(IMAGENET, CAFFE, batch)
    padding = expected == 0
    assert padding.any()
    assert (converted[padding].abs() <= 4 * 255 * 2**-23).all()
    assert (converted[1, :, :, 80:] == 0).all()


def test_same_preprocessor_is_handed_on_untouched(batch):
    bridge, inputs, converted, _ = both(IMAGENET, IMAGENET, batch)
    assert bridge.is_identity
    assert converted is inputs
    assert 'same input' in repr(bridge)


def test_says_what_it_converts(batch):
    bridge, *_ = both(IMAGENET, dict(CAFFE, pad_value=3), batch)
    assert repr(bridge) == 'converts channel order, mean and std, padding'


def test_student_input_is_not_changed(batch):
    student = DetDataPreprocessor(**IMAGENET)
    data = student(batch(), True)
    before = copy.deepcopy(data['inputs'])
    PreprocessBridge(student, DetDataPreprocessor(**CAFFE))(
        data['inputs'], data['data_samples']
    )
    assert torch.equal(data['inputs'], before)


def test_half_precision_is_converted_in_float32(batch):
    student = DetDataPreprocessor(**IMAGENET)
    bridge = PreprocessBridge(student, DetDataPreprocessor(**CAFFE))
    data = student(batch(), True)
    exact = bridge(data['inputs'], data['data_samples'])
    half = bridge(data['inputs'].half(), data['data_samples'])
    assert half.dtype == torch.float16
    # The input is rounded to 2^-11 relative (|y| < 3, std < 59), the
    # output again.
    torch.testing.assert_close(half.float(), exact, rtol=2**-10, atol=0.1)


def test_sample_without_a_shape_fills_its_frame():
    student = DetDataPreprocessor(**IMAGENET)
    bridge = PreprocessBridge(student, DetDataPreprocessor(**RAW))
    converted = bridge(torch.zeros(1, 3, 32, 32), [object()])
    mean = torch.tensor(IMAGENET['mean']).flip(0)
    torch.testing.assert_close(converted[0, :, 31, 31], mean)


GREY = dict(mean=[128.0], std=[64.0])
FOUR = dict(mean=[1.0, 2.0, 3.0, 4.0], std=[5.0, 6.0, 7.0, 8.0])
OTHER_FOUR = dict(mean=[9.0, 3.0, 0.0, 2.0], std=[2.0, 1.0, 4.0, 3.0])


@pytest.mark.parametrize(
    'channels, student, teacher',
    [
        (1, GREY, dict()),
        (1, dict(), GREY),
        (1, GREY, dict(mean=[0.0], std=[255.0], to_rgb=True)),
        (2, dict(mean=[1.0, 2.0], std=[3.0, 4.0]), GREY),
        (3, GREY, dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])),
        (3, GREY, dict(to_rgb=True)),
        (3, dict(mean=[1.0, 2.0, 3.0], std=[4.0], to_rgb=True), GREY),
        (4, FOUR, OTHER_FOUR),
        (4, FOUR, dict(OTHER_FOUR, to_rgb=True)),
        (4, dict(), FOUR),
        (13, GREY, dict()),
    ],
)
def test_any_number_of_channels(channels, student, teacher):
    torch.manual_seed(0)
    image = torch.randint(0, 256, (2, channels, 8, 8), dtype=torch.uint8)
    student = ClsDataPreprocessor(**student)
    teacher = ClsDataPreprocessor(**teacher)
    converted = PreprocessBridge(student, teacher)(
        student(dict(inputs=image))['inputs'], [object()] * 2
    )
    expected = teacher(dict(inputs=image))['inputs']
    assert converted.shape == (2, channels, 8, 8)
    # Values up to 255 go through three roundings of float32.
    torch.testing.assert_close(
        converted, expected, rtol=0, atol=4 * 255 * 2**-23
    )


def test_unlike_numbers_of_channels_are_refused():
    four = ClsDataPreprocessor(**FOUR)
    with pytest.raises(ValueError, match='of 3 channels, the teacher.* for 4'):
        PreprocessBridge(DetDataPreprocessor(**IMAGENET), four)
    rgb = ClsDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0])
    grey = PreprocessBridge(ClsDataPreprocessor(**GREY), rgb)
    # It would become three channels by broadcasting.
    with pytest.raises(ValueError, match='have 1 channels, mean.* 3 values'):
        grey(torch.zeros(2, 1, 8, 8), [object()] * 2)
    converting = DetDataPreprocessor(bgr_to_rgb=True)
    with pytest.raises(ValueError, match='have 4 channels, and the teacher'):
        PreprocessBridge(ClsDataPreprocessor(), converting)(
            torch.zeros(2, 4, 8, 8), [object()] * 2
        )


def test_says_that_the_teacher_sees_raw_pixels():
    bridge = PreprocessBridge(
        DetDataPreprocessor(**IMAGENET), DetDataPreprocessor(**RAW)
    )
    assert 'the teacher normalises nothing' in repr(bridge)


def test_quotients_are_sent_to_a_device_once(batch):
    bridge, inputs, converted, _ = both(CAFFE, IMAGENET, batch)
    scale, shift = bridge._quotients(inputs.device, torch.float32)
    assert bridge._quotients(inputs.device, torch.float32) == (scale, shift)
    again = bridge(inputs, batch()['data_samples'])
    assert bridge._quotients(inputs.device, torch.float32)[0] is scale
    assert again.shape == converted.shape
