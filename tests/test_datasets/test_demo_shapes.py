"""The generated data set: reproducible, valid COCO, never half there."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmrkkd.datasets import CLASSES, Recipe, demo_shapes, make_demo_shapes
from mmrkkd.datasets.demo_drawing import coverage, polygon_area
from mmrkkd.registry import DATASETS

SMALL = dict(train=30, val=24, size=64)


def content_hash(folder):
    """Hash over the names and the bytes of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope='module')
def small_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    assert make_demo_shapes(folder, Recipe(**SMALL), progress=False)
    return folder


def test_at_least_twenty_readable_classes():
    assert len(CLASSES) == len(set(CLASSES)) >= 20
    assert 'red striped disc' in CLASSES


def test_same_seed_gives_same_bytes(small_set, tmp_path):
    make_demo_shapes(tmp_path / 'again', Recipe(**SMALL), progress=False)
    assert content_hash(tmp_path / 'again') == content_hash(small_set)


def test_another_seed_gives_other_images(small_set, tmp_path):
    make_demo_shapes(
        tmp_path / 'other', Recipe(**SMALL, seed=1), progress=False
    )
    for split in ('train', 'val'):
        name = f'{split}/000000.png'
        assert (tmp_path / 'other' / name).read_bytes() != (
            small_set / name
        ).read_bytes()


def test_larger_set_starts_with_the_smaller_one():
    small, large = Recipe(train=30), Recipe(train=300)
    pixels = [
        demo_shapes.draw_image(recipe, 'train', 7)[0]
        for recipe in (small, large)
    ]
    assert np.array_equal(*pixels)


def test_training_and_held_out_images_differ(small_set):
    train, val = (
        {path.read_bytes() for path in (small_set / s).iterdir()}
        for s in ('train', 'val')
    )
    assert len(train) == 30 and len(val) == 24 and not train & val


@pytest.mark.parametrize('split', ['train', 'val'])
def test_annotations_are_valid_coco(small_set, split):
    coco = COCO(small_set / 'annotations' / f'{split}.json')
    assert len(coco.imgs) == SMALL[split]
    names = {c['id']: c['name'] for c in coco.cats.values()}
    assert tuple(names[i] for i in sorted(names)) == CLASSES
    assert {a['category_id'] for a in coco.anns.values()} == set(names)
    for annotation in coco.anns.values():
        x, y, width, height = annotation['bbox']
        assert x >= 0 and y >= 0 and width >= 8 and height >= 8
        assert x + width <= 64 and y + height <= 64
        corners = np.array(annotation['segmentation'][0]).reshape(-1, 2)
        assert np.array_equal(corners.min(0), [x, y])
        assert np.array_equal(corners.max(0), [x + width, y + height])
        assert annotation['area'] == polygon_area(corners)
        assert 0.3 * width * height < annotation['area'] <= width * height
        # pycocotools rounds corners to pixels: off by part of the rim.
        area = coco_mask.area(coco.annToRLE(annotation))
        rim = np.abs(np.diff(corners, axis=0)).sum()
        assert abs(area - annotation['area']) < 0.5 * rim


def test_images_have_the_stated_size(small_set):
    with Image.open(small_set / 'val' / '000023.png') as image:
        assert image.size == (64, 64) and image.mode == 'RGB'


def test_an_outline_covers_its_area():
    square = np.array([[2.5, 2.0], [6.5, 2.0], [6.5, 5.0], [2.5, 5.0]])
    share = coverage(square, 8)
    assert share.sum() == polygon_area(square) == 12
    assert share[2].tolist() == [0, 0, 0.5, 1, 1, 1, 0.5, 0]


def test_complete_set_is_reused(small_set):
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob('*')}
    assert not make_demo_shapes(small_set, Recipe(**SMALL), progress=False)
    assert before == {
        path: path.stat().st_mtime_ns for path in small_set.rglob('*')
    }


@pytest.mark.parametrize('change', [dict(seed=3), dict(size=72)])
def test_set_of_another_recipe_is_replaced(tmp_path, change):
    make_demo_shapes(tmp_path / 'd', Recipe(**SMALL), progress=False)
    other = Recipe(**dict(SMALL, **change))
    assert make_demo_shapes(tmp_path / 'd', other, progress=False)
    assert (
        json.loads((tmp_path / 'd' / 'recipe.json').read_text())
        == other.record()
    )


def test_set_with_a_lost_image_is_drawn_again(tmp_path):
    make_demo_shapes(tmp_path / 'd', Recipe(**SMALL), progress=False)
    before = content_hash(tmp_path / 'd')
    (tmp_path / 'd' / 'train' / '000003.png').unlink()
    assert make_demo_shapes(tmp_path / 'd', Recipe(**SMALL), progress=False)
    assert content_hash(tmp_path / 'd') == before


def test_interrupted_drawing_leaves_no_set_and_is_made_good(
    small_set, tmp_path, monkeypatch
):
    draw_image, drawn = demo_shapes.draw_image, []

    def interrupted(*args):
        drawn.append(args)
        if len(drawn) == 10:
            raise KeyboardInterrupt
        return draw_image(*args)

    monkeypatch.setattr(demo_shapes, 'draw_image', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_demo_shapes(tmp_path / 'd', Recipe(**SMALL), progress=False)
    assert not (tmp_path / 'd').exists()
    assert make_demo_shapes(tmp_path / 'd', Recipe(**SMALL), progress=False)
    assert content_hash(tmp_path / 'd') == content_hash(small_set)
    assert [path.name for path in tmp_path.iterdir()] == ['d']


@pytest.mark.parametrize('name', ['mine.txt', 'train'])
def test_foreign_folder_is_refused_and_untouched(tmp_path, name):
    (tmp_path / 'd').mkdir()
    (tmp_path / 'd' / name).write_text('precious')
    with pytest.raises(FileExistsError, match=f'not a generated.*{name}'):
        make_demo_shapes(tmp_path / 'd', Recipe(**SMALL), progress=False)
    assert (tmp_path / 'd' / name).read_text() == 'precious'


def test_own_set_with_a_foreign_file_is_refused(tmp_path):
    make_demo_shapes(tmp_path / 'd', Recipe(**SMALL), progress=False)
    (tmp_path / 'd' / 'notes.txt').write_text('precious')
    with pytest.raises(FileExistsError, match='it holds notes'):
        make_demo_shapes(
            tmp_path / 'd', Recipe(**SMALL, seed=1), progress=False
        )


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / 'd').mkdir()
    assert make_demo_shapes(tmp_path / 'd', Recipe(**SMALL), progress=False)


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(val=23), 'val must be at least 24.*got 23'),
        (dict(size=32), 'size must be at least 64 pixels.*got 32'),
        (dict(seed=-1), 'seed must be in .*got -1'),
    ],
)
def test_recipe_states_the_broken_rule(wrong, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)


def test_dataset_resolves_by_its_scoped_name(small_set):
    pytest.importorskip('mmdet')
    dataset = DATASETS.build(
        dict(
            type='mmrkkd.DemoShapesDataset',
            data_root=str(small_set),
            ann_file='annotations/val.json',
            data_prefix=dict(img='val/'),
        )
    )
    assert dataset.metainfo['classes'] == CLASSES and len(dataset) == 24
