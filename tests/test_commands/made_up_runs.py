"""Run folders as the tools leave them, without any training."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from small_runs import draw_images, random_weights, student_config

from mmrkkd.checkpoint.atomic import write_json
from mmrkkd.datasets import CLASSES, Recipe, make_demo_shapes
from mmrkkd.evaluation.resampled_ap import match_images
from mmrkkd.report.measurements import AP, AP50, measurements
from mmrkkd.report.surroundings import surroundings

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)
from experiments.detection import PREDICTIONS, WRITTEN, pack_predictions  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

DEMO = ROOT / 'configs' / 'demo'
# Label, config, and how many of ten objects it finds and names.
MODELS = (
    ('teacher', 'faster-rcnn_r50_demo.py', 9, 9),
    ('student', 'faster-rcnn_mv2_demo.py', 6, 5),
    ('kd', 'kd_r50_mv2_demo.py', 7, 6),
    ('rkkd', 'rkkd_r50_mv2_demo.py', 7, 8),
)


def demo_folder(folder, seeds=(0, 1), images=24, steps=8):
    """As tools/demo.py leaves it; returns the folder."""
    data = folder / 'data'
    make_demo_shapes(data, Recipe(train=24, val=images))
    where = dict(surroundings(ROOT), side_by_side=1, threads=1)
    for number, (label, config, *quality) in enumerate(MODELS):
        teaches = label == 'teacher'
        for seed in seeds[:1] if teaches else seeds:
            cell = folder / label
            cell = cell if teaches else cell / f'seed{seed}'
            write_cell(cell, label, seed, config, data, folder, where)
            random = np.random.default_rng([number, seed])
            found = made_up_detections(data, random, *quality)
            (cell / WRITTEN).write_text(json.dumps(found))
            pack_predictions(cell)
            scores = scores_of(data, cell)
            write_log(cell, random, steps, scores, distils=number > 1)
            result = json.loads((cell / 'result.json').read_text())
            result.update(measurements(cell, AP))
            write_json(cell / 'result.json', result)
    return folder


def write_cell(cell, label, seed, config, data, folder, where):
    """The config, the weights and the record of a cell, without scores."""
    cell.mkdir(parents=True)
    settings = Config.fromfile(DEMO / config)
    options = {'data_root': f'{data}/', 'randomness.seed': seed}
    if 'teacher' in settings.model:
        options['model.teacher.checkpoint'] = f'{folder}/teacher/iter_8.pth'
    settings.merge_from_dict(options)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        settings[loader].dataset.data_root = f'{data}/'
    for evaluator in ('val_evaluator', 'test_evaluator'):
        settings[evaluator].ann_file = f'{data}/annotations/val.json'
    settings.work_dir = str(cell)
    settings.dump(cell / 'cell_config.py')
    torch.save({}, cell / 'iter_8.pth')
    (cell / 'last_checkpoint').write_text(str(cell / 'iter_8.pth'))
    agreement = dict(tau=0.5, top1_agreement=0.75, kl=0.25)
    write_json(
        cell / 'result.json',
        dict(
            label=label,
            seed=seed,
            seconds=90.0,
            processor_seconds=90.0,
            attempts=[where],
            metric=AP,
            agreement={} if label == 'teacher' else agreement,
        ),
    )


def scores_of(data, cell):
    """AP and AP50 of the predictions that a cell keeps."""
    with np.load(cell / PREDICTIONS) as found:
        truth = data / 'annotations' / 'val.json'
        return match_images(truth, found, CLASSES).scores()


def write_log(cell, random, steps, scores, distils):
    """What MMEngine logs: some steps, a validation half way and one last."""
    lines = []
    for step in range(1, steps + 1):
        noise = random.normal(0, 0.05)
        entry = dict(loss=3 / step + noise, loss_cls=2 / step + noise)
        if distils:
            entry['loss_kd'] = 1 / step + noise
            entry['kd/tau'] = 1 - 1 / (step + 1) + noise
            entry['kd/grad_share_loss_kd'] = 0.3 + noise
        lines.append(dict(entry, time=1.0, iter=step, step=step))
        if step in (steps // 2, steps):
            whole, half = (score * step / steps for score in scores)
            lines.append({AP: whole, AP50: half, 'step': step})
    log = cell / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True)
    text = '\n'.join(map(json.dumps, lines))
    (log / 'scalars.json').write_text(text)


def made_up_detections(data, random, finds, names):
    """What a detector of some quality says, as CocoMetric writes it."""
    truth = json.loads((data / 'annotations' / 'val.json').read_text())
    found = []
    for entry in truth['annotations']:
        if random.integers(10) >= finds:
            continue
        label = entry['category_id']
        if random.integers(10) >= names:
            # A neighbour: the same shape and colour, another texture.
            label += 1 if label < len(CLASSES) else -1
        box = np.array(entry['bbox']) + random.normal(0, 2, 4)
        found.append(
            dict(
                image_id=entry['image_id'],
                category_id=label,
                bbox=box.tolist(),
                score=random.uniform(0.2, 1),
            )
        )
    for image in truth['images'][::3]:
        found.append(
            dict(
                image_id=image['id'],
                category_id=1,
                bbox=[*random.uniform(0, 90, 2), 25.0, 25.0],
                score=random.uniform(0.1, 0.7),
            )
        )
    return found


def by_hand(folder, name, seed=None, score=0.5, **config):
    """A work directory of tools/train.py with one validation."""
    config = dict(
        dict(
            model=dict(type='ImageClassifier'),
            train_cfg=dict(max_epochs=2),
            val_dataloader=dict(dataset=dict(type='X', data_root='data')),
            randomness=dict(seed=seed),
        ),
        **config,
    )
    log = folder / name / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True)
    lines = [
        {'loss': 1.0, 'iter': 1, 'step': 1, 'epoch': 1},
        {'accuracy/top1': score, 'step': 1},
    ]
    (log / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    Config(config).dump(log / 'config.py')
    return folder / name


def classifier_folders(tmp_path):
    """A student alone and a distilled one, with weights, of 12 images."""
    draw_images(tmp_path / 'images')
    config = student_config(tmp_path / 'images')
    config.dump(tmp_path / 'student.py')
    weights = random_weights(config.model, tmp_path / 'weights.pth')
    teacher = dict(
        config=str(tmp_path / 'student.py'), checkpoint=str(weights)
    )
    folders = []
    for name in ('alone', 'distilled'):
        own = config.to_dict()
        if name == 'distilled':
            own['model'] = dict(
                type='mmrkkd.KDClassifier',
                student=config.model,
                teacher=teacher,
                losses=dict(type='mmrkkd.RankKDLoss'),
            )
        folders.append(by_hand(tmp_path, name, **own))
        shutil.copy(weights, folders[-1] / 'student.pth')
    return folders
