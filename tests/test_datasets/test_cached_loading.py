"""Images are decoded once, and nobody changes the ones in memory."""

import cv2
import numpy as np
import pytest

from mmrkkd.datasets import LoadCachedImage, LoadIntactImage


@pytest.fixture
def paths(tmp_path):
    random = np.random.default_rng(0)
    found = []
    for number in range(2):
        path = str(tmp_path / f'{number}.png')
        cv2.imwrite(path, random.integers(0, 255, (4, 5, 3), np.uint8))
        found.append(path)
    return found


def test_cached_image_is_the_one_of_the_file(paths, tmp_path):
    load = LoadCachedImage()
    expected = LoadIntactImage()(dict(img_path=paths[0]))
    first = load(dict(img_path=paths[0]))
    # Whoever paints into what was returned paints into a copy.
    first['img'][:] = 0
    (tmp_path / '0.png').unlink()
    for _ in range(2):
        again = load(dict(img_path=paths[0]))
        assert np.array_equal(again['img'], expected['img'])
        assert again['img'].flags.writeable
        assert again['img_shape'] == expected['img_shape']
        assert again['ori_shape'] == expected['ori_shape']
        again['img'][:] = 0


def test_memory_has_a_limit(paths, tmp_path):
    # One image of 4 x 5 x 3 bytes.
    load = LoadCachedImage(max_bytes=100)
    for path in paths:
        load(dict(img_path=path))
    (tmp_path / '0.png').unlink()
    assert load(dict(img_path=paths[0]))['img'].shape == (4, 5, 3)
    (tmp_path / '1.png').unlink()
    with pytest.raises(FileNotFoundError):
        load(dict(img_path=paths[1]))


def test_no_memory_is_refused():
    with pytest.raises(ValueError, match='max_bytes must be above 0, got 0'):
        LoadCachedImage(max_bytes=0)
