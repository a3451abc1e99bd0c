"""Tiny-ImageNet as it is published, and sorted anew."""

import os

import numpy as np
import pytest
from PIL import Image

from mmrkkd.datasets import ImageFolder, TinyImageNet

# Not sorted, as in the published list.
WNIDS = ('n03', 'n01', 'n02')


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path, format='JPEG')


@pytest.fixture
def root(tmp_path):
    """The published layout: three classes, two and one images of each."""
    (tmp_path / 'wnids.txt').write_text('\n'.join(WNIDS) + '\n')
    (tmp_path / 'words.txt').write_text(
        'n01\tgoldfish, Carassius auratus\nn02\tcrane\nn09\tunused\n'
    )
    lines = []
    for i, wnid in enumerate(WNIDS):
        for k in range(2):
            write_image(
                tmp_path / 'train' / wnid / 'images' / f'{wnid}_{k}.JPEG'
            )
        (tmp_path / 'train' / wnid / f'{wnid}_boxes.txt').write_text('')
        write_image(tmp_path / 'val' / 'images' / f'val_{i}.JPEG')
        lines.append(f'val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n')
    (tmp_path / 'val' / 'val_annotations.txt').write_text(''.join(lines))
    write_image(tmp_path / 'test' / 'images' / 'test_0.JPEG')
    return tmp_path


def sort_val(root):
    """What the usual sorting scripts do."""
    for i, wnid in enumerate(WNIDS):
        (root / 'val' / wnid).mkdir()
        (root / 'val' / 'images' / f'val_{i}.JPEG').rename(
            root / 'val' / wnid / f'val_{i}.JPEG'
        )


def names_of(dataset):
    return [
        (os.path.basename(dataset[i]['img_path']), dataset[i]['gt_label'])
        for i in range(len(dataset))
    ]


# val_0 is of n03, the last of the sorted identifiers.
VAL = [('val_0.JPEG', 2), ('val_1.JPEG', 0), ('val_2.JPEG', 1)]


def test_training_images_are_labelled_by_the_sorted_identifiers(root):
    dataset = TinyImageNet(str(root))
    assert dataset.metainfo['classes'] == ('n01', 'n02', 'n03')
    assert names_of(dataset) == [
        (f'n0{i + 1}_{k}.JPEG', i) for i in range(3) for k in range(2)
    ]


def test_validation_images_are_labelled_by_the_annotations(root):
    dataset = TinyImageNet(str(root), split='val')
    assert dataset.metainfo['classes'] == ('n01', 'n02', 'n03')
    assert names_of(dataset) == VAL
    assert os.path.isfile(dataset[0]['img_path'])


def test_a_sorted_copy_gives_the_same_labels(root):
    sort_val(root)
    dataset = TinyImageNet(str(root), split='val')
    assert sorted(names_of(dataset)) == VAL


def test_an_image_folder_of_a_sorted_copy_has_the_same_labels(root):
    sort_val(root)
    (root / 'val' / 'images').rmdir()
    for split in ('train', 'val'):
        plain = ImageFolder(str(root), split=split)
        named = TinyImageNet(str(root), split=split)
        assert names_of(plain) == names_of(named)
        assert plain.metainfo['classes'] == named.metainfo['classes']


def test_words_are_the_first_names_or_the_identifiers(root):
    dataset = TinyImageNet(str(root))
    assert dataset.metainfo['words'] == ('goldfish', 'crane', 'n03')


def test_lists_may_lack_where_the_folders_tell(root):
    (root / 'words.txt').unlink()
    (root / 'wnids.txt').unlink()
    dataset = TinyImageNet(str(root), split='val')
    assert names_of(dataset) == VAL
    assert 'words' not in dataset.metainfo


@pytest.mark.parametrize('is_sorted', [False, True])
def test_a_subset_keeps_its_order(root, is_sorted):
    if is_sorted:
        sort_val(root)
    dataset = TinyImageNet(str(root), split='val', classes=('n03', 'n01'))
    assert names_of(dataset) == [('val_0.JPEG', 0), ('val_1.JPEG', 1)]


def test_a_missing_archive_is_told_with_its_layout(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        TinyImageNet(str(tmp_path))
    message = str(caught.value)
    assert 'tiny-imagenet-200.zip' in message and 'CS231n' in message
    assert str(tmp_path / 'train') in message


def test_a_listed_class_without_a_folder_is_named(root):
    (root / 'wnids.txt').write_text('n01\nn02\nn03\nn04\n')
    with pytest.raises(FileNotFoundError, match='n04'):
        TinyImageNet(str(root))
    with pytest.raises(FileNotFoundError, match='n04'):
        TinyImageNet(str(root), split='val')


def test_missing_annotations_are_named(root):
    (root / 'val' / 'val_annotations.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'val_annotations\.txt'):
        TinyImageNet(str(root), split='val')


def test_missing_validation_images_are_counted(root):
    (root / 'val' / 'images' / 'val_1.JPEG').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 images .* val_1\.JPEG'):
        TinyImageNet(str(root), split='val')


def test_damaged_annotations_name_their_line(root):
    path = root / 'val' / 'val_annotations.txt'
    path.write_text(path.read_text() + 'val_3.JPEG n01\n')
    with pytest.raises(ValueError, match='line 4'):
        TinyImageNet(str(root), split='val')


def test_a_training_class_without_images_is_named(root):
    for path in (root / 'train' / 'n02' / 'images').iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="class 'n02' has no image"):
        TinyImageNet(str(root))


def test_unlabelled_test_images_are_refused(root):
    with pytest.raises(ValueError, match="got 'test'"):
        TinyImageNet(str(root), split='test')
