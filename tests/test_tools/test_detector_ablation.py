"""The ablation of detectors: AP, samples of the images, the real thing."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmrkkd.datasets import Recipe, make_demo_shapes
from mmrkkd.evaluation.kept_predictions import copies_of_images
from mmrkkd.report import means_of
from mmrkkd.report.measurements import scores

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

import ablation  # noqa: E402
from experiments import detection, jobs, pool, records  # noqa: E402

from mmrkkd.evaluation.summary import Bootstrap, over_images  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

AP = 'coco/bbox_mAP'
IMAGES = 6
# Towards the ablation it behaves as tools/train.py with MMDetection's metric
# does, and needs no second. Every image has one box; a detector finds those of
# the first `found` images, and a wrong one of less certainty on each.
TRAIN = """
import json, sys
from pathlib import Path
from mmengine.config import Config
config = Config.fromfile(sys.argv[1])
folder = Path(config.work_dir)
assert config.val_evaluator.classwise
log = folder / '2026_1' / 'vis_data'
log.mkdir(parents=True)
print('Iter(train)  [10/10]  lr: 1e-1  loss: 0.5')
found = config.found + config.randomness.seed
boxes = [dict(image_id=i, category_id=1, bbox=[10, 10, 20, 20], score=0.9)
         for i in range(1, found + 1)]
boxes += [dict(image_id=i, category_id=1, bbox=[60, 60, 20, 20], score=0.3)
          for i in range(1, 7)]
with open(log / 'scalars.json', 'w') as file:
    for step in (5, 10):
        print(json.dumps({'loss': 0.5, 'iter': step, 'step': step}), file=file)
        if step == 10 and config.get('killed'):
            break
        entry = {'coco/bbox_mAP': round(found / 6, 3) * step / 10,
                 'coco/bbox_mAP_50': round(found / 6, 3), 'step': step}
        print(json.dumps(entry), file=file)
        path = config.val_evaluator.outfile_prefix + '.bbox.json'
        Path(path).write_text(json.dumps(boxes))
(folder / 'iter_10.pth').touch()
(folder / 'last_checkpoint').write_text(str(folder / 'iter_10.pth'))
"""
# And this as tools/test.py.
TEST = """
import json, sys
from pathlib import Path
from mmengine.config import Config
config = Config.fromfile(sys.argv[1])
assert config.test_evaluator == config.val_evaluator
assert Path(sys.argv[2]).name == 'iter_10.pth'
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1]) / '20261127_1'
folder.mkdir(parents=True)
(folder / '20261127_1.json').write_text(
    json.dumps({'coco/bbox_mAP': 0.75, 'coco/bbox_mAP_50': 1.0, 'time': 1}))
"""
CONFIG = """
model = dict(type='FasterRCNN')
found = {found}
killed = {killed}
train_cfg = dict(type='IterBasedTrainLoop', max_iters=10, val_interval=5)
val_dataloader = dict(dataset=dict(metainfo=dict(classes=('cat', ))))
val_evaluator = dict(type='mmdet.CocoMetric', ann_file='truth.json')
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with configs of pretended trainings; work goes there."""
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'test.py').write_text(TEST)
    monkeypatch.setattr(jobs, 'TRAIN', tmp_path / 'train.py')
    monkeypatch.setattr(jobs, 'TEST', tmp_path / 'test.py')
    monkeypatch.setattr(pool, 'SECONDS_BETWEEN_LOOKS', 0.02)
    monkeypatch.chdir(tmp_path)
    truth = dict(
        images=[dict(id=i, width=99, height=99) for i in range(1, IMAGES + 1)],
        annotations=[
            dict(
                id=i,
                image_id=i,
                category_id=1,
                bbox=[10, 10, 20, 20],
                area=400,
                iscrowd=0,
            )
            for i in range(1, IMAGES + 1)
        ],
        categories=[dict(id=1, name='cat')],
    )
    Path('truth.json').write_text(json.dumps(truth))
    write_config('alone_x.py', 2)
    write_config('kd_x.py', 4)
    return tmp_path


def write_config(name, found, killed=False):
    Path(name).write_text(CONFIG.format(found=found, killed=killed))


def run(*arguments):
    return ablation.main([*map(str, arguments), '--work-dir', 'out'])


def content():
    return json.loads(Path('out/ablation.json').read_text())


def test_detectors_are_compared_by_ap_in_percent(folder):
    assert run('alone_x.py', 'kd_x.py', '--seeds', 0, 1) == 0
    assert content()['metric'] == AP and content()['baseline'] == 'kd'
    results = {(r['label'], r['seed']): r for r in content()['results']}
    # By iteration; MMEngine's default would put both at 0.
    assert results['alone', 0]['best_epoch'] == 10
    assert results['alone', 0]['scores'] == {
        AP: 0.333,
        'coco/bbox_mAP_50': 0.333,
    }
    text = Path('out/ablation.md').read_text()
    # 2 and 3 boxes of 6 against 4 and 5: (33.3 + 50) / 2 = 41.65.
    assert '| alone  |     2 | 41.65 ± 11.81 |' in text
    assert '-33.35 ± 0.05' in text and 'AP50' in text
    assert f'{AP} in percent' in text


def test_what_other_images_would_have_done_is_told(folder):
    assert run('alone_x.py', 'kd_x.py', '--seeds', 0, '--bootstrap', 400) == 0
    row = content()['rows'][0]['over_images']
    assert (row['images'], row['samples'], row['seeds']) == (6, 400, [0])
    # At 101 recalls, a detector of 2 of 6 is right up to recall 1/3: at 34
    # of them; of 4 of 6 at 67.
    expected = 100 * (34 - 67) / 101
    assert row['mean'] == pytest.approx([expected] * 2)
    # They differ on 2 of 6 images: in a sample, by a share that is binomial.
    binomial = 100 * np.sqrt(1 / 3 * 2 / 3 / 6)
    assert row['standard_error'] == pytest.approx([binomial] * 2, rel=0.1)
    half = 1.959964 * row['standard_error'][0]
    assert row['low'][0] == pytest.approx(expected - half)
    assert row['high'][0] == pytest.approx(expected + half)
    text = Path('out/ablation.md').read_text()
    assert f'{expected:+.2f}' in text and '95 % over images' in text
    assert '400 bootstrap samples of the 6 validation images' in text


def test_samples_are_drawn_once_and_are_the_same_for_all(folder):
    assert run('alone_x.py', 'kd_x.py', '--seeds', 0, '--bootstrap', 50) == 0
    kept = Path('out/kd/seed0/resampled.npz')
    first, number = content()['rows'][0]['over_images'], kept.stat().st_mtime
    again = ('alone_x.py', 'kd_x.py', '--seeds', 0, '--report-only')
    assert run(*again, '--bootstrap', 50) == 0
    assert content()['rows'][0]['over_images'] == first
    assert kept.stat().st_mtime == number
    assert run(*again, '--bootstrap', 20) == 0
    assert content()['rows'][0]['over_images']['samples'] == 20
    assert run(*again, '--bootstrap', 0) == 0
    assert content()['rows'][0]['over_images'] is None
    copies = copies_of_images(6, 50)
    assert (copies.sum(1) == 6).all() and copies.shape == (50, 6)


def test_predictions_are_packed(folder):
    assert run('kd_x.py', '--seeds', 0) == 0
    assert not Path('out/kd/seed0/predictions.bbox.json').exists()
    with np.load('out/kd/seed0/predictions.npz') as found:
        assert found['image_id'].tolist() == [1, 2, 3, 4, *range(1, 7)]
        assert found['bbox'].dtype == np.float32
        assert found['bbox'][0].tolist() == [10, 10, 20, 20]
        assert found['score'] == pytest.approx([0.9] * 4 + [0.3] * 6)


def test_a_kill_while_they_are_packed_loses_none(folder, monkeypatch):
    Path('predictions.bbox.json').write_text('[]')
    earlier = b'of an earlier training'
    for name in ('predictions.npz', 'resampled.npz'):
        Path(name).write_bytes(earlier)

    def killed(file, **arrays):
        if isinstance(file, Path):
            file.write_bytes(b'half')
        raise KeyboardInterrupt

    save = np.savez_compressed
    monkeypatch.setattr(np, 'savez_compressed', killed)
    with pytest.raises(KeyboardInterrupt):
        detection.pack_predictions(folder)
    assert Path('predictions.npz').read_bytes() == earlier
    # Nor would other samples be taken for those of the new predictions.
    assert not Path('resampled.npz').exists()
    monkeypatch.setattr(np, 'savez_compressed', save)
    detection.pack_predictions(folder)
    with np.load('predictions.npz') as found:
        assert len(found['score']) == 0


@pytest.mark.parametrize('content', [b'', b'PK', b'half'])
def test_half_a_file_of_samples_is_drawn_again(folder, content):
    arguments = ('alone_x.py', 'kd_x.py', '--seeds', 0, '--bootstrap', 20)
    assert run(*arguments) == 0
    first = content_of_samples()
    path = Path('out/kd/seed0/resampled.npz')
    path.write_bytes(content if content != b'half' else path.read_bytes()[:99])
    assert run(*arguments, '--report-only') == 0
    assert content_of_samples() == first
    with np.load(path) as kept:
        assert kept['samples'].shape == (20, 2)


def content_of_samples():
    return content()['rows'][0]['over_images']


def test_half_a_file_of_predictions_is_told(folder, capsys):
    arguments = ('alone_x.py', 'kd_x.py', '--seeds', 0, '--bootstrap', 20)
    assert run(*arguments, '--bootstrap', 0) == 0
    path = Path('out/kd/seed0/predictions.npz')
    path.write_bytes(path.read_bytes()[:99])
    assert run(*arguments, '--report-only') == 1
    assert 'predictions.npz cannot be read' in capsys.readouterr().err
    path.unlink()
    assert run(*arguments, '--report-only') == 0
    assert content_of_samples() is None


def test_other_images_are_not_paired(folder, capsys):
    truth = json.loads(Path('truth.json').read_text())
    config = Path('kd_x.py').read_text().replace('truth.json', 'other.json')
    Path('kd_x.py').write_text(config)
    Path('other.json').write_text(json.dumps(truth))
    arguments = ('alone_x.py', 'kd_x.py', '--seeds', 0, '--bootstrap', 20)
    # Another file of the same content.
    assert run(*arguments) == 0
    assert content_of_samples()['images'] == 6
    truth['images'].pop()
    Path('other.json').write_text(json.dumps(truth))
    capsys.readouterr()
    assert run(*arguments, '--report-only') == 1
    assert (
        'val_evaluator.ann_file differs: truth.json and other.json. Give all '
        'methods the same file, or --bootstrap 0' in capsys.readouterr().err
    )
    assert run(*arguments, '--report-only', '--bootstrap', 0) == 0


def test_a_validation_that_a_kill_has_cost_is_made_up(folder):
    write_config('kd_x.py', 4, killed=True)
    assert run('kd_x.py', '--seeds', 0) == 0
    (result,) = content()['results']
    assert (result['last'], result['epochs']) == (0.75, 10)
    assert result['scores']['coco/bbox_mAP_50'] == 1
    # What was measured is measured.
    assert records.validated(Path('out/kd/seed0'))


def test_other_metrics_are_left_alone():
    config = Config(dict(val_evaluator=[dict(type='Accuracy')]))
    detection.keep_predictions(config, Path('x'))
    assert config.val_evaluator == [dict(type='Accuracy')]
    masks = dict(type='CocoMetric', metric=['segm'])
    assert detection.coco_metric(Config(dict(val_evaluator=masks))) is None


def test_differences_over_images_by_hand():
    def scores(whole, *samples):
        return Bootstrap(np.array([whole]), np.array(samples)[:, None], 9)

    found = over_images(
        {0: scores(5.0, 4.0, 6.0), 1: scores(7.0, 8.0, 6.0)},
        {0: scores(4.0, 3.0, 3.0), 1: scores(4.0, 3.0, 5.0), 2: scores(0, 0)},
    )
    # Seeds 0 and 1: 1 and 3. The first sample: 1 and 5, the second: 3 and 1.
    assert found['mean'] == [2.0] and found['seeds'] == [0, 1]
    # 3 and 2: deviation sqrt(1/2), around the mean of the whole.
    assert found['standard_error'] == pytest.approx([0.5**0.5])
    assert found['low'] == pytest.approx([2 - 1.959964 * 0.5**0.5])
    assert found['high'] == pytest.approx([2 + 1.959964 * 0.5**0.5])
    assert over_images({0: scores(1.0, 1.0)}, {}) is None


@pytest.mark.slow
def test_real_detectors_are_compared_with_the_real_teacher(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make_demo_shapes(tmp_path / 'data', Recipe(train=24, val=24, size=64))
    demo = ROOT / 'configs' / 'demo'
    model = 'model.student'
    quick = {
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 1,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'default_hooks.logger.interval': 1,
    }
    distilled = {
        'model.teacher.checkpoint': None,
        'model.teacher.allow_random_weights': True,
        'model.gradient_interval': 1,
        # An untrained detector finds little that is likely.
        f'{model}.test_cfg.rcnn.score_thr': 0.0,
    }
    sweep = dict(
        seeds=[0],
        baseline='alone',
        cfg_options=quick,
        cells=dict(
            alone=dict(
                config=str(demo / 'faster-rcnn_mv2_demo.py'),
                cfg_options={'model.test_cfg.rcnn.score_thr': 0.0},
            ),
            rkkd=dict(
                config=str(demo / 'rkkd_r50_mv2_demo.py'),
                cfg_options=distilled,
            ),
        ),
    )
    Path('sweep.json').write_text(json.dumps(sweep))
    arguments = ['--threads', '1', '--bootstrap', '20', '--work-dir', 'out']
    arguments += ['--cfg-options', f'data_root={tmp_path}/data']
    assert ablation.main(['sweep.json', *arguments]) == 0
    alone, rkkd = content()['results']
    for result in (alone, rkkd):
        assert result['agreement']['boxes'] > 24
        assert -1 <= result['agreement']['tau'] <= 1
        assert result['seconds'] > 0 and result['processor_seconds'] > 0
        # 24 classes, each with its own.
        each = [k for k in result['scores'] if k.endswith('_precision')]
        assert len(each) == 24 and 0 <= result['last'] <= result['best']
    assert set(rkkd['gradient_shares']) == {'kd', 'rank', 'task'}
    cell = Path('out/rkkd/seed0')
    with np.load(cell / 'predictions.npz') as found:
        assert len(found['score']) > 24
    log = records.log_of(cell)
    assert [step for step, _ in scores(log, AP)] == [1, 2]
    assert [step for step, _ in means_of(log, 'kd/tau')] == [1, 2]
    # AP as MMDetection logged it, from what was kept.
    with np.load(cell / 'resampled.npz') as kept:
        assert kept['samples'].shape == (20, 2)
        assert kept['whole'][0] / 100 == pytest.approx(rkkd['last'], abs=6e-4)
