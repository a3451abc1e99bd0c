"""What a run keeps of its predictions, also where a file is cut off."""

import numpy as np
import pytest
from mmengine.config import Config

from mmrkkd.evaluation.kept_predictions import (
    PREDICTIONS,
    RESAMPLED,
    coco_metric,
    kept_bootstrap,
    kept_detections,
)

FOUND = dict(
    image_id=np.array([3]),
    category_id=np.array([1]),
    bbox=np.array([[0.0, 0.0, 2.0, 2.0]]),
    score=np.array([0.5]),
)


def test_detections_are_read_as_they_were_kept(tmp_path):
    path = tmp_path / PREDICTIONS
    np.savez_compressed(path, **FOUND)
    found = kept_detections(path)
    assert list(found) == list(FOUND)
    for name, value in FOUND.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize('share', [0, 0.02, 0.5, 0.99])
def test_detections_that_are_cut_off_are_named(share, tmp_path):
    path = tmp_path / PREDICTIONS
    np.savez_compressed(path, **FOUND)
    cut_off(path, share)
    with pytest.raises(ValueError, match=f'{path} cannot be read'):
        kept_detections(path)


def test_an_array_that_is_not_there_is_named(tmp_path):
    path = tmp_path / PREDICTIONS
    np.savez_compressed(path, image_id=FOUND['image_id'])
    with pytest.raises(ValueError, match='cannot be read.*category_id'):
        kept_detections(path)


def cut_off(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def test_samples_are_kept(tmp_path):
    assert kept_bootstrap(tmp_path, 5) is None
    samples = np.arange(10.0).reshape(5, 2)
    np.savez(tmp_path / RESAMPLED, whole=[1, 2], samples=samples, images=7)
    found = kept_bootstrap(tmp_path, 5)
    np.testing.assert_array_equal(found.samples, samples)
    assert found.images == 7
    # Those of another number are made anew.
    assert kept_bootstrap(tmp_path, 6) is None


@pytest.mark.parametrize('share', [0, 0.02, 0.5, 0.99])
def test_samples_that_are_cut_off_are_made_anew(share, tmp_path):
    path = tmp_path / RESAMPLED
    np.savez(path, whole=[1, 2], samples=np.ones((5, 2)), images=7)
    cut_off(path, share)
    assert kept_bootstrap(tmp_path, 5) is None


def test_the_metric_is_found_in_every_form_of_an_evaluator():
    coco = dict(type='CocoMetric', ann_file='val.json', metric='bbox')
    other = dict(type='Accuracy')
    for evaluator in (
        coco,
        [other, coco],
        dict(type='Evaluator', metrics=coco),
        dict(type='Evaluator', metrics=[other, coco]),
    ):
        assert coco_metric(Config(dict(val_evaluator=evaluator))) == coco
    for evaluator in (None, other, dict(type='Evaluator', metrics=[other])):
        assert coco_metric(Config(dict(val_evaluator=evaluator))) is None
