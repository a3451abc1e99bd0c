"""Image folders and CIFAR-100: labels, class names and clear errors."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mmrkkd.datasets import CIFAR100, ImageFolder


def write_image(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8, 3), level, np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Two splits of three classes, 'ant' with two training images."""
    for split in ('train', 'val'):
        for name in ('cow', 'ant', 'bee'):
            write_image(tmp_path / split / name / 'b.png')
    write_image(tmp_path / 'train' / 'ant' / 'a.JPEG')
    return tmp_path


def names_of(dataset):
    return [
        (
            os.path.relpath(dataset[i]['img_path'], dataset.data_root),
            dataset[i]['gt_label'],
        )
        for i in range(len(dataset))
    ]


def test_labels_follow_the_sorted_folder_names(root):
    dataset = ImageFolder(str(root))
    assert dataset.metainfo['classes'] == ('ant', 'bee', 'cow')
    assert names_of(dataset) == [
        ('train/ant/a.JPEG', 0),
        ('train/ant/b.png', 0),
        ('train/bee/b.png', 1),
        ('train/cow/b.png', 2),
    ]


def test_validation_has_the_same_labels(root):
    dataset = ImageFolder(str(root), split='val')
    assert dataset.metainfo['classes'] == ('ant', 'bee', 'cow')
    assert [label for _, label in names_of(dataset)] == [0, 1, 2]


def test_any_split_may_be_named(root):
    (root / 'val').rename(root / 'choice')
    assert len(ImageFolder(str(root), split='choice')) == 3


def test_a_validation_set_alone_can_be_read(root):
    for path in sorted((root / 'train').rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (root / 'train').rmdir()
    assert len(ImageFolder(str(root), split='val')) == 3


def test_chosen_classes_keep_their_order_and_others_are_not_read(root):
    dataset = ImageFolder(str(root), classes=['cow', 'ant'])
    assert dataset.metainfo['classes'] == ('cow', 'ant')
    assert names_of(dataset) == [
        ('train/cow/b.png', 0),
        ('train/ant/a.JPEG', 1),
        ('train/ant/b.png', 1),
    ]


def test_chosen_classes_may_come_from_a_file(root):
    (root / 'few.txt').write_text('bee\ncow\n')
    dataset = ImageFolder(str(root), classes=str(root / 'few.txt'))
    assert dataset.metainfo['classes'] == ('bee', 'cow')
    assert len(dataset) == 2


def test_chosen_classes_need_not_be_those_of_the_other_split(root):
    write_image(root / 'val' / 'dog' / 'a.png')
    dataset = ImageFolder(str(root), split='val', classes=('ant', 'bee'))
    assert len(dataset) == 2


def test_images_in_deeper_folders_count_and_hidden_ones_do_not(root):
    write_image(root / 'train' / 'cow' / 'images' / 'z.jpg')
    write_image(root / 'train' / 'cow' / '._b.png')
    write_image(root / 'train' / '.cache' / 'b.png')
    (root / 'train' / 'cow' / 'notes.txt').write_text('moo')
    cows = [path for path, label in names_of(ImageFolder(str(root)))][-2:]
    assert cows == ['train/cow/b.png', 'train/cow/images/z.jpg']


def test_links_to_images_and_classes_are_followed(root, tmp_path):
    linked = tmp_path / 'linked' / 'train'
    linked.mkdir(parents=True)
    (linked / 'ant').symlink_to(root / 'train' / 'ant')
    (linked / 'bee').mkdir()
    (linked / 'bee' / 'x.png').symlink_to(root / 'train' / 'bee' / 'b.png')
    assert len(ImageFolder(str(tmp_path / 'linked'))) == 3


def test_it_is_built_from_a_config_by_its_scope(root):
    dataset = DATASETS.build(
        dict(
            type='mmrkkd.ImageFolder',
            data_root=str(root),
            split='val',
            pipeline=[dict(type='LoadImageFromFile')],
        )
    )
    assert dataset[0]['img'].shape == (8, 8, 3)
    assert 'Number of categories: \t3' in repr(dataset)


def test_a_missing_split_is_named_with_what_is_expected(root):
    with pytest.raises(FileNotFoundError) as caught:
        ImageFolder(str(root / 'nowhere'), split='val')
    message = str(caught.value)
    assert str(root / 'nowhere' / 'val') in message
    assert 'train/<class>/*.jpg' in message
    assert '--cfg-options data_root=PATH' in message


def test_a_missing_chosen_class_is_named(root):
    with pytest.raises(FileNotFoundError, match='train/dog'):
        ImageFolder(str(root), classes=['dog'])


def test_a_class_without_an_image_is_named(root):
    (root / 'train' / 'bee' / 'b.png').rename(root / 'train' / 'bee' / 'b.gif')
    with pytest.raises(FileNotFoundError, match="class 'bee' has no image"):
        ImageFolder(str(root))


def test_splits_with_other_classes_are_refused(root):
    write_image(root / 'val' / 'dog' / 'a.png')
    (root / 'val' / 'ant').rename(root / 'val' / 'ape')
    with pytest.raises(ValueError) as caught:
        ImageFolder(str(root), split='val')
    assert '2 only in val: ape, dog; 1 only in train: ant' in str(caught.value)


def test_a_flat_split_is_told_to_be_sorted(root):
    write_image(root / 'flat' / 'a.png')
    with pytest.raises(FileNotFoundError, match='folder of its class'):
        ImageFolder(str(root), split='flat')


def test_published_tiny_imagenet_is_sent_to_its_own_class(root):
    for name in ('ant', 'bee', 'cow'):
        (root / 'val' / name / 'b.png').unlink()
        (root / 'val' / name).rmdir()
    write_image(root / 'val' / 'images' / 'val_0.JPEG')
    (root / 'val' / 'val_annotations.txt').write_text('val_0.JPEG\tant\n')
    with pytest.raises(ValueError, match='mmrkkd.TinyImageNet'):
        ImageFolder(str(root), split='val')


def test_a_class_named_twice_is_refused(root):
    with pytest.raises(ValueError, match="'ant' twice"):
        ImageFolder(str(root), classes=['ant', 'bee', 'ant'])


def test_a_broken_image_is_not_passed_over(root):
    (root / 'val' / 'ant' / 'b.png').write_bytes(b'no image')
    dataset = ImageFolder(
        str(root), split='val', pipeline=[dict(type='LoadImageFromFile')]
    )
    # The other images can be read, so it is this one that cannot.
    assert dataset[1]['img'].shape == (8, 8, 3)
    # OpenCV's and MMCV's own errors differ between versions.
    with pytest.raises((AssertionError, AttributeError, OSError, cv2.error)):
        dataset[0]


def test_cifar100_names_its_missing_files(tmp_path):
    (tmp_path / 'cifar-100-python').mkdir()
    (tmp_path / 'cifar-100-python' / 'train').write_bytes(b'')
    with pytest.raises(FileNotFoundError) as caught:
        CIFAR100(data_root=str(tmp_path))
    message = str(caught.value)
    assert 'lacks test.' in message
    assert 'cifar-100-python.tar.gz' in message
    assert 'download=True' in message


def test_damaged_files_of_cifar100_are_not_read(tmp_path):
    (tmp_path / 'cifar-100-python').mkdir()
    for name in ('train', 'test'):
        (tmp_path / 'cifar-100-python' / name).write_bytes(b'')
    with pytest.raises(RuntimeError, match='CIFAR100'):
        CIFAR100(data_root=str(tmp_path))


@pytest.mark.slow
def test_mmrkkd_works_without_mmpretrain():
    code = (
        'import importlib.util as util\n'
        'find = util.find_spec\n'
        "util.find_spec = lambda name, *a: None if name == 'mmpretrain' "
        'else find(name, *a)\n'
        'import mmrkkd, mmrkkd.datasets, sys\n'
        "assert 'mmpretrain' not in sys.modules\n"
        "assert 'StrongAugment' in mmrkkd.datasets.__all__\n"
        "assert 'ImageFolder' not in mmrkkd.datasets.__all__\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True)
