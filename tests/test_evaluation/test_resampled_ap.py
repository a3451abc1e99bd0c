"""AP on samples of the images: COCO's own, by other arithmetic."""

import contextlib
import io
import json

import numpy as np
import pytest

pytest.importorskip('mmdet')
from mmdet.evaluation import CocoMetric
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmrkkd.evaluation.resampled_ap import match_images

CLASSES = ('cat', 'dog', 'owl')
IMAGES = 12


def truth_and_detections(seed=0):
    """Boxes, some of them crowds, and detections near and far from them."""
    random = np.random.default_rng(seed)
    annotations, found = [], []
    for image in range(IMAGES):
        for _ in range(random.integers(0, 5)):
            box = [*random.uniform(0, 60, 2), *random.uniform(10, 40, 2)]
            kind = int(random.integers(1, 3))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image + 10,
                    category_id=kind,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=int(random.random() < 0.15),
                )
            )
            for _ in range(2):
                shaken = np.array(box) + random.normal(0, 3, 4)
                other = int(random.integers(1, 4))
                found.append(
                    (image + 10, kind if random.random() < 0.7 else other,
                     shaken.clip(1), random.random())
                )  # fmt: skip
    truth = dict(
        images=[
            dict(id=i + 10, width=100, height=100, file_name='')
            for i in range(IMAGES)
        ],
        annotations=annotations,
        categories=[dict(id=i + 1, name=n) for i, n in enumerate(CLASSES)],
    )
    images, kinds, boxes, scores = map(np.array, zip(*found, strict=True))
    return truth, dict(
        image_id=images, category_id=kinds, bbox=boxes, score=scores
    )


@pytest.fixture
def files(tmp_path):
    truth, found = truth_and_detections()
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    return path, found


def coco_on(path, found, images, categories=None):
    """pycocotools' precisions (T, R, K) on a list of images, with copies.

    A copy of an image is an image of its own, as COCO knows it.
    """
    truth = json.loads(path.read_text())
    made = dict(truth, images=[], annotations=[])
    results = []
    for copy, image in enumerate(images):
        new = 1000 + copy
        made['images'].append(dict(id=new, width=100, height=100))
        made['annotations'] += [
            dict(a, id=1000 * new + a['id'], image_id=new)
            for a in truth['annotations']
            if a['image_id'] == image
        ]
        results += [
            dict(
                image_id=new,
                category_id=int(found['category_id'][n]),
                bbox=found['bbox'][n].tolist(),
                score=float(found['score'][n]),
            )
            for n in np.flatnonzero(found['image_id'] == image)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = made
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
        if categories:
            evaluation.params.catIds = categories
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval['precision'][:, :, :, 0, -1]


def test_all_images_once_is_coco(files):
    matches = match_images(*files)
    precision = coco_on(*files, range(10, 10 + IMAGES))
    ours = matches.average_precision()
    assert tuple(ours) == CLASSES
    for number, name in enumerate(CLASSES):
        theirs = precision[:, :, number]
        if name == 'owl':
            # No object of that class: COCO says -1.
            assert (theirs == -1).all() and np.isnan(ours[name]).all()
        else:
            np.testing.assert_allclose(
                ours[name], theirs.mean(1), rtol=0, atol=1e-12
            )
    known = precision[precision > -1]
    ap, ap50 = matches.scores()
    assert 0.1 < ap < ap50 < 0.95
    assert ap == pytest.approx(known.mean(), abs=1e-12)
    half = precision[0][precision[0] > -1]
    assert ap50 == pytest.approx(half.mean(), abs=1e-12)


@pytest.mark.parametrize('seed', range(5))
def test_a_sample_is_coco_with_every_copy_an_image(files, seed):
    chosen = np.random.default_rng(seed).integers(0, IMAGES, IMAGES)
    copies = np.bincount(chosen, minlength=IMAGES)
    precision = coco_on(*files, chosen + 10)
    ap, ap50 = match_images(*files).scores(copies)
    assert ap == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
    half = precision[0][precision[0] > -1]
    assert ap50 == pytest.approx(half.mean(), abs=1e-12)


def test_only_the_named_classes_count(files):
    ap, _ = match_images(*files, classes=['dog']).scores()
    precision = coco_on(*files, range(10, 10 + IMAGES), categories=[2])
    assert ap == pytest.approx(precision.mean(), abs=1e-12)
    assert ap != pytest.approx(match_images(*files).scores()[0], abs=1e-3)


def test_mmdetections_number_is_ours_to_three_digits(files):
    path, found = files
    metric = CocoMetric(ann_file=str(path))
    metric.dataset_meta = dict(classes=CLASSES)
    for image in range(10, 10 + IMAGES):
        mine = found['image_id'] == image
        boxes = found['bbox'][mine].copy()
        boxes[:, 2:] += boxes[:, :2]
        metric.results.append(
            (
                {},
                dict(
                    img_id=image,
                    bboxes=boxes,
                    scores=found['score'][mine],
                    labels=found['category_id'][mine] - 1,
                ),
            )
        )
    scores = metric.compute_metrics(metric.results)
    ap, ap50 = match_images(path, found, CLASSES).scores()
    assert scores['bbox_mAP'] == pytest.approx(ap, abs=6e-4)
    assert scores['bbox_mAP_50'] == pytest.approx(ap50, abs=6e-4)


def test_a_perfect_detector_and_one_that_finds_nothing(tmp_path):
    truth, _ = truth_and_detections()
    for annotation in truth['annotations']:
        annotation['iscrowd'] = 0
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    entries = truth['annotations']
    perfect = dict(
        image_id=np.array([a['image_id'] for a in entries]),
        category_id=np.array([a['category_id'] for a in entries]),
        bbox=np.array([a['bbox'] for a in entries]),
        score=np.ones(len(entries)),
    )
    assert match_images(path, perfect).scores() == pytest.approx((1, 1))
    nothing = {name: value[:0] for name, value in perfect.items()}
    assert match_images(path, nothing).scores() == (0, 0)


def test_a_sample_without_any_object_has_no_score(files):
    path, _ = files
    matches = match_images(*files)
    empty = set(range(10, 10 + IMAGES)) - {
        a['image_id'] for a in json.loads(path.read_text())['annotations']
    }
    copies = np.zeros(IMAGES, int)
    copies[[image - 10 for image in empty]] = 3
    assert empty and np.isnan(matches.scores(copies)).all()
