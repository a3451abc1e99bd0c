"""Class names are read wherever and however they are stated."""

import numpy as np
import pytest

from mmrkkd.distillers.class_names import (
    checkpoint_classes,
    metainfo_classes,
    names_in_order,
)

NAMES = ('cat', 'dog')


@pytest.mark.parametrize(
    'names',
    [
        NAMES,
        list(NAMES),
        np.array(NAMES),
        {0: 'cat', 1: 'dog'},
        {1: 'dog', 0: 'cat'},
        {'0': 'cat', '1': 'dog'},
        {'dog': 1, 'cat': 0},
    ],
)
def test_forms_of_a_list(names):
    assert names_in_order('x', names) == NAMES


def test_no_names():
    assert names_in_order('x', None) is None
    for meta in (None, {}, [], [{}], dict(classes=None), dict(palette=[])):
        assert metainfo_classes('x', meta) is None


@pytest.mark.parametrize(
    'names,message',
    [
        ('person', r"x must be .* got the string 'person'.*\('person',\)"),
        ({'cat', 'dog'}, 'x must be a list of class names in the order'),
        (5, 'x must be a list .* got 5'),
        ({1: 'cat', 2: 'dog'}, 'does not number its 2 class names from 0'),
        ({'cat': {}, 'dog': {}}, 'does not number its 2 class names from 0'),
    ],
)
def test_what_is_no_list(names, message):
    with pytest.raises(ValueError, match=message):
        names_in_order('x', names)
    with pytest.raises(ValueError, match=message):
        metainfo_classes('x', dict(classes=names))


@pytest.mark.parametrize(
    'meta',
    [
        dict(classes=NAMES),
        dict(CLASSES=NAMES),
        dict(classes=NAMES, CLASSES=('COCO',)),
        list(NAMES),
        # MMDetection's ConcatDataset, where the metainfo differs.
        [dict(classes=NAMES, palette=1), dict(classes=NAMES, palette=2)],
        [dict(classes=NAMES), dict(classes=list(NAMES)), dict(palette=3)],
        [dict(classes=('cat',)), dict(CLASSES=NAMES)],
    ],
)
def test_places_in_metainfo(meta):
    assert metainfo_classes('x', meta) == NAMES


def test_data_sets_that_contradict_each_other():
    meta = [dict(classes=NAMES), dict(classes=('dog', 'cat', 'fish'))]
    with pytest.raises(
        ValueError, match=r"x differ between the 2 .*'cat', 'dog'\).*'fish'\)"
    ):
        metainfo_classes('x', meta)


@pytest.mark.parametrize(
    'meta',
    [
        dict(dataset_meta=dict(classes=NAMES)),
        dict(dataset_meta=dict(CLASSES=list(NAMES))),
        dict(dataset_meta=list(NAMES)),
        dict(dataset_meta=[dict(classes=NAMES), dict(classes=NAMES)]),
        dict(classes=NAMES),
        dict(CLASSES=NAMES),
        dict(CLASSES={0: 'cat', 1: 'dog'}),
        dict(dataset_meta=None, CLASSES=NAMES),
        dict(dataset_meta=dict(palette=[]), CLASSES=NAMES),
    ],
)
def test_places_in_a_checkpoint(meta):
    assert checkpoint_classes(dict(meta=meta)) == NAMES


def test_a_checkpoint_without_names():
    assert checkpoint_classes(dict(meta={})) is None


def test_a_checkpoint_of_one_word():
    meta = dict(dataset_meta=dict(classes='person'))
    with pytest.raises(
        ValueError,
        match=r"teacher.classes=\[...\] takes .*\('person',\)",
    ):
        checkpoint_classes(dict(meta=meta))
