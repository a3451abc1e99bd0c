"""Annotation files are compared with the classes before they are read."""

import copy
import json
import re

import pytest
from mmdet.datasets import (
    CocoDataset,
    CocoPanopticDataset,
    LVISV1Dataset,
    Objects365V1Dataset,
)
from mmengine.config import Config

from mmrkkd.datasets import DemoShapesDataset, check_data, coco_annotations
from mmrkkd.datasets.coco_annotations import check_annotations, is_coco

CLASSES = ('cat', 'dog', 'fish')
SIZE = dict(height=8, width=8)
BOX = dict(image_id=0, bbox=[0, 0, 4, 4], area=16)
GOOD = dict(
    images=[dict(id=0, file_name='a.png', **SIZE)],
    annotations=[
        dict(id=0, category_id=1, **BOX),
        dict(id=1, category_id=3, **BOX),
    ],
    categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
)
FORMAT = (
    "MMDetection's CocoDataset reads images (id, file_name, height, width), "
    'categories (id, name), annotations (id, image_id, category_id, bbox, '
    'area); mend the file, or name another by ann_file'
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'a.json'


@pytest.fixture
def told(monkeypatch):
    """What is printed."""
    lines = []
    monkeypatch.setattr(
        coco_annotations, 'print_log', lambda text, *_: lines.append(text)
    )
    return lines


def good(**changes):
    return dict(copy.deepcopy(GOOD), **changes)


def named(*names):
    return [dict(id=i + 1, name=name) for i, name in enumerate(names)]


def check(file, content, classes=CLASSES):
    file.write_text(json.dumps(content))
    check_annotations(str(file), classes)


def test_a_file_of_the_classes_passes_silently(file, told):
    check(file, good())
    no_boxes = good()
    # As the files of COCO's test sets are.
    del no_boxes['annotations']
    check(file, no_boxes)
    assert told == []


def test_none_of_the_classes_is_refused(file):
    with pytest.raises(ValueError) as error:
        check(file, good(categories=named('Cat', 'Dog')))
    assert str(error.value) == (
        f'annotation file {file} has none of the classes of its data set, '
        'and all its boxes would be left out.\n'
        "The classes (3): 'cat', 'dog', 'fish'\n"
        "Categories of the file (2): 'Cat', 'Dog'\n"
        'Give the names of the file by metainfo=dict(classes=(...)) of the '
        'data set, or name another file by ann_file'
    )


def test_names_that_only_one_has_are_told_once_with_the_lost_boxes(file, told):
    content = good(categories=named('cat', 'dog', 'Fish'))
    file.write_text(json.dumps(content))
    for _ in range(2):
        check_annotations(str(file), CLASSES)
    assert told == [
        f'annotation file {file} does not fit the classes:\n'
        "Only the classes have (1): 'fish'\n"
        "Only the file has (1): 'Fish'\n"
        '1 of its 2 boxes are left out'
    ]


def test_boxes_of_no_category_are_lost(file, told):
    content = good()
    for box in content['annotations']:
        box['category_id'] += 100
    check(file, content)
    assert told == [
        f'annotation file {file} does not fit the classes:\n'
        '2 of its 2 boxes are left out'
    ]


def test_the_order_of_the_file_numbers_the_classes(file, told):
    """In MMDetection too: the label is the place in the file."""
    content = good(categories=named('cat', 'fish', 'dog'))
    check(file, content)
    assert told == [
        f'annotation file {file} does not fit the classes:\n'
        "MMDetection numbers classes in the file's order: label 1 is 'fish' "
        "and is taken for 'dog'. Give metainfo.classes in the order of the "
        'categories, all of which the file must have'
    ]
    dataset = CocoDataset(
        ann_file=str(file),
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        test_mode=True,
    )
    boxes = dataset.get_data_info(0)['instances']
    assert [box['bbox_label'] for box in boxes] == [0, 2]
    assert content['categories'][2]['name'] == 'dog'
    assert dataset.metainfo['classes'][2] == 'fish'


def test_long_lists_are_cut(file):
    with pytest.raises(ValueError) as error:
        check(file, good(), tuple(map(str, range(11))))
    assert "(11): '0', '1', '2'" in str(error.value)
    assert "'9', ...\nCategories" in str(error.value)


@pytest.mark.parametrize(
    'text, message',
    [
        ('', ' is no JSON (Expecting value: line 1 column 1 (char 0)). '),
        ('[]', ' must hold a dict, got a list. '),
        (json.dumps(good(images=[])), ' has no images. '),
        (json.dumps(good(categories={})), ' has no categories. '),
        ('{"images": [{}]}', ": images[0] has no 'id', got {}. "),
        (
            json.dumps(good(annotations=[dict(id=0, **BOX)])),
            ": annotations[0] has no 'category_id', got "
            "{'id': 0, 'image_id': 0, 'bbox': [0, 0, 4, 4], 'area': 16}. ",
        ),
        (json.dumps(good(annotations=None)), ' has no annotations. '),
    ],
)
def test_a_broken_file_is_named(file, text, message):
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        check_annotations(str(file), CLASSES)
    assert str(error.value) == f'annotation file {file}{message}{FORMAT}'


def test_a_large_file_of_the_classes_is_not_read_whole(
    file, told, monkeypatch
):
    monkeypatch.setattr(coco_annotations, 'LARGE', 300)
    monkeypatch.setattr(
        coco_annotations, '_read', lambda path: pytest.fail('read whole')
    )
    # What is none, or of something else, is not taken for the list.
    other = dict(categories=['x'], note='"categories": [')
    last = dict(info=other, **good())
    first = dict(reversed(last.items()))
    for content in (last, first):
        check(file, content)
    assert told == []


def test_a_large_file_of_other_classes_is_read_whole(file, told, monkeypatch):
    monkeypatch.setattr(coco_annotations, 'LARGE', 300)
    check(file, good(), ('cat', 'dog'))
    assert told == [
        f'annotation file {file} does not fit the classes:\n'
        "Only the file has (1): 'fish'\n"
        '1 of its 2 boxes are left out'
    ]


def test_whose_files_are_compared():
    class Own(CocoDataset):
        pass

    class ReadsItself(CocoDataset):
        def load_data_list(self):
            return []

    for kind in (CocoDataset, DemoShapesDataset, Own):
        assert is_coco(kind)
    for kind in (
        LVISV1Dataset,
        Objects365V1Dataset,
        CocoPanopticDataset,
        ReadsItself,
        dict,
    ):
        assert not is_coco(kind)


# -- by a config ------------------------------------------------------------


def config_of(dataset):
    return Config(
        dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset))
    )


def coco(file, **changes):
    return dict(
        type='CocoDataset',
        data_root=str(file.parent),
        ann_file=file.name,
        metainfo=dict(classes=CLASSES),
        **changes,
    )


@pytest.mark.parametrize(
    'wrapped',
    [
        lambda inner: inner,
        lambda inner: dict(type='RepeatDataset', times=2, dataset=inner),
        lambda inner: dict(type='ConcatDataset', datasets=[inner, inner]),
        lambda inner: dict(
            type='MultiImageMixDataset',
            dataset=dict(type='ClassBalancedDataset', dataset=inner),
        ),
    ],
)
def test_every_data_set_is_looked_into(file, wrapped):
    file.write_text(json.dumps(good(categories=named('bird'))))
    message = f'annotation file {re.escape(str(file))} has none of the classes'
    with pytest.raises(ValueError, match=message):
        check_data(config_of(wrapped(coco(file))))


def test_the_classes_may_be_those_of_the_data_set(file):
    file.write_text(json.dumps(good(categories=named('bird'))))
    dataset = coco(file)
    # 'bird' is one of COCO's.
    del dataset['metainfo']
    check_data(config_of(dataset))
    dataset['type'] = 'mmrkkd.DemoShapesDataset'
    with pytest.raises(ValueError, match=r"classes \(24\): 'red plain disc'"):
        check_data(config_of(dataset))


def test_annotations_to_be_ignored_need_no_box(file):
    content = good()
    content['annotations'].append(
        dict(id=2, image_id=0, category_id=1, ignore=1)
    )
    check(file, content)
    del content['annotations'][2]['ignore']
    with pytest.raises(ValueError, match=r"annotations\[2\] has no 'bbox'"):
        check(file, content)


class OwnClasses(CocoDataset):
    def __init__(self, **options):
        super().__init__(metainfo=dict(classes=('bird',)), **options)


def test_a_data_set_that_chooses_its_classes_itself_is_left_alone():
    assert is_coco(CocoDataset) and not is_coco(OwnClasses)


def test_what_is_not_like_coco_is_left_alone(file):
    file.write_text('')
    for changes in (
        dict(type='LVISV1Dataset'),
        dict(type='NobodyKnows'),
        dict(backend_args=dict(backend='petrel')),
        dict(metainfo=dict(classes='cat')),
    ):
        check_data(config_of(dict(coco(file), **changes)))
