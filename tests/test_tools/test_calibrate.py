"""Calibration: gradient norms, shares, proposed weights."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import classifier_config
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.visualization import Visualizer
from PIL import Image

from mmrkkd.distillers.gradient_share import term_gradients

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
sys.path.insert(0, TOOLS)

import calibrate  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

STUDENT = classifier_config()
LOSSES = dict(type='mmrkkd.RankKDLoss', kd_weight=0.5, rank_weight=2.0)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Twelve images of three classes, configs of a student and a KD."""
    folder = tmp_path_factory.mktemp('calibrate')
    random = np.random.default_rng(0)
    for name in ('cat', 'dog', 'fish'):
        (folder / 'train' / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            image = Image.fromarray(pixels)
            image.save(folder / 'train' / name / f'{number}.png')
    config = Config(
        dict(
            default_scope='mmpretrain',
            data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
            model=STUDENT,
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=dict(
                    type='mmrkkd.ImageFolder',
                    data_root=str(folder),
                    split='train',
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='PackInputs'),
                    ],
                ),
            ),
        )
    )
    config.dump(folder / 'plain.py')
    config.model = dict(
        type='mmrkkd.KDClassifier',
        student=STUDENT,
        teacher=dict(
            config=str(folder / 'plain.py'), allow_random_weights=True
        ),
        losses=LOSSES,
        task_weight=0.1,
        class_names=['cat', 'dog', 'fish'],
    )
    config.dump(folder / 'kd.py')
    return folder


@pytest.fixture(autouse=True)
def no_traces():
    """What a tool leaves in its process must not reach other tests."""
    yield
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        manager._instance_dict.clear()


def run(*arguments):
    return calibrate.main([str(argument) for argument in arguments])


def rows(text):
    """Term to (norm, share, proposal) of the printed table."""
    table = text.split('for a share of')[1].splitlines()[1:]
    cells = [[c.strip() for c in row.split('  ') if c] for row in table if row]
    return {first: others for first, *others in cells}


def test_every_term_gets_norm_share_and_proposal(folder, capsys):
    before = sorted(folder.rglob('*'))
    assert run(folder / 'kd.py', '--batches', 2) == 0
    text = capsys.readouterr().out
    table = rows(text)
    assert set(table) == {'kd', 'rank', 'task'}
    assert sum(
        float(share.split()[0]) for _, share, _ in table.values()
    ) == pytest.approx(1, abs=2e-3)
    for term, name, weight in (
        ('kd', 'kd_weight', 0.5),
        ('rank', 'rank_weight', 2),
        ('task', 'task_weight', 0.1),
    ):
        assert table[term][2].startswith(f'{name} {weight:g} -> ')
    assert 'over 2 batches' in text and 'nothing was changed' in text
    assert sorted(folder.rglob('*')) == before


def test_proposed_weight_gives_the_wanted_share(folder, capsys):
    arguments = (folder / 'kd.py', '--batches', 3, '--share', 0.3)
    run(*arguments)
    proposed = rows(capsys.readouterr().out)['rank'][2].split()[-1]
    run(*arguments, '--cfg-options', f'model.losses.rank_weight={proposed}')
    share = rows(capsys.readouterr().out)['rank'][1]
    # Mean of ratios against ratio of means over three unlike batches.
    assert float(share.split()[0]) == pytest.approx(0.3, abs=0.03)


def test_norms_are_those_of_the_gradients(folder):
    args = calibrate.parse_args([str(folder / 'kd.py')])
    with calibrate.prepare(args) as (model, _):
        model.cpu()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    from mmpretrain.structures import DataSample

    batch = dict(
        inputs=list(images),
        data_samples=[DataSample().set_gt_label(n % 3) for n in range(4)],
    )
    norms = calibrate.measure(model, [batch], 1)[LOGITS]
    # The same batch by hand: logits through the head, losses on top.
    data = model.data_preprocessor(batch, True)
    with torch.no_grad():
        features = model.student.extract_feat(data['inputs'])
        teacher = model.teacher.model(data['inputs'], mode='tensor')
    logits = model.student.head(features).detach().requires_grad_()
    labels = torch.tensor([0, 1, 2, 0])
    terms = model.distiller[0](logits, teacher, labels)
    task = torch.nn.functional.cross_entropy(logits, labels)
    expected = term_gradients(dict(terms, task=0.1 * task), [logits])
    assert norms['kd'] == [pytest.approx(float(expected['loss_kd']))]
    assert norms['rank'] == [pytest.approx(float(expected['loss_rank']))]
    assert norms['task'] == [pytest.approx(float(expected['task']))]


LOGITS = "the student's logits"
SP = dict(type='mmrkkd.SPLoss', student_layers='backbone[0]')


def places_of(text):
    """Place to :func:`rows`, of a text with several tables."""
    parts = text.split('\nAt ')[1:]
    return {part.split(':')[0]: rows(part) for part in parts}


def test_features_have_a_table_of_their_own(folder, capsys):
    config = Config.fromfile(folder / 'kd.py')
    kd = dict(type='mmrkkd.KDLoss', temperature=4.0)
    config.model.losses = [kd, dict(SP, loss_weight=3000.0)]
    config.model.gradient_interval = 1
    config.dump(folder / 'sp.py')
    options = ('--batches', 2, '--share', 0.25)
    assert run(folder / 'sp.py', *options) == 0
    text = capsys.readouterr().out
    assert 'Norms at unlike places cannot be compared' in text
    found = places_of(text)
    assert {place: list(table) for place, table in found.items()} == {
        LOGITS: ['kd', 'task'],
        'what sp compares': ['sp', 'task'],
    }
    for table in found.values():
        shares = [float(share.split()[0]) for _, share, _ in table.values()]
        assert sum(shares) == pytest.approx(1, abs=2e-3)
    norms = {
        place: {term: float(row[0].split()[0]) for term, row in table.items()}
        for place, table in found.items()
    }
    # The head lies between the two places.
    assert norms[LOGITS]['task'] != norms['what sp compares']['task']
    # sp f / (sp f + task) = 1 / 4, of the task at these features alone.
    own = norms['what sp compares']
    name, before, _, after = found['what sp compares']['sp'][2].split()
    assert (name, before) == ('loss_weight', '3000')
    wanted = 3000 * own['task'] / own['sp'] / 3
    assert float(after) == pytest.approx(wanted, rel=0.02)
    proposed = f'model.losses.1.loss_weight={after}'
    run(folder / 'sp.py', *options, '--cfg-options', proposed)
    found = places_of(capsys.readouterr().out)
    share = found['what sp compares']['sp'][1]
    assert float(share.split()[0]) == pytest.approx(0.25, abs=0.03)


def test_a_loss_of_features_alone_is_measured(folder, capsys):
    config = Config.fromfile(folder / 'kd.py')
    config.model.losses = SP
    config.dump(folder / 'alone.py')
    assert run(folder / 'alone.py', '--batches', 1) == 0
    text = capsys.readouterr().out
    assert list(places_of(text)) == ['what sp compares']
    assert 'unlike places' not in text


def test_norms_are_sorted_by_their_places():
    step = {
        'loss_kd': 9.0,
        's0.kd/grad_norm_kd': 1.0,
        's0.kd/grad_norm_task': 2.0,
        's0.kd/grad_share_kd': 9.0,
        's1.kd/grad_norm_kd': 3.0,
        's1.kd/grad_norm_task': 4.0,
        # Of this one the task's pull could not be measured.
        'kd/grad_norm_fitnet': 5.0,
        'kd/grad_norm_fgd_foreground': 6.0,
        'kd/grad_norm_fgd_relation': 7.0,
        'kd/grad_norm_task_at_fgd': 8.0,
        's0.kd/grad_norm_box_giou': 9.0,
        's0.kd/grad_norm_task_at_box_giou': 10.0,
    }
    assert calibrate.places(step) == {
        f'{LOGITS} of s0': dict(kd=1.0, task=2.0),
        f'{LOGITS} of s1': dict(kd=3.0, task=4.0),
        'what fgd compares': dict(
            fgd_foreground=6.0, fgd_relation=7.0, task=8.0
        ),
        'what box_giou of s0 compares': dict(box_giou=9.0, task=10.0),
    }
    assert calibrate.places({'kd/grad_norm_task': 1.0}) == {}


def test_where_nothing_can_be_measured_that_is_told(
    folder, capsys, monkeypatch
):
    monkeypatch.setattr(calibrate, 'places', lambda terms: {})
    assert run(folder / 'kd.py', '--batches', 1) == 1
    assert 'and has none: leave out activation' in capsys.readouterr().err


def test_arithmetic_by_hand():
    norms = dict(kd=[3.0, 1.0], rank=[1.0, 1.0], nothing=[0.0, 0.0])
    assert calibrate.shares(norms) == dict(
        kd=[0.75, 0.5], rank=[0.25, 0.5], nothing=[0.0, 0.0]
    )
    # rank 1, the others 2: f / (f + 2) = 0.5 at f = 2.
    assert calibrate.factor(norms, 'rank', 0.5) == 2
    # kd 2, the others 1: 2 f / (2 f + 1) = 0.2 at f = 1 / 8.
    assert calibrate.factor(norms, 'kd', 0.2) == pytest.approx(1 / 8)
    assert calibrate.factor(norms, 'nothing', 0.5) is None
    assert calibrate.factor(dict(kd=[1.0]), 'kd', 0.5) is None
    assert calibrate.shares(dict(kd=[0.0])) == dict(kd=[0.0])


def test_loss_with_several_weights_gets_a_factor():
    text = '\n'.join(
        calibrate.lines(
            dict(dkd_target=[1.0], rank=[1.0]),
            dict(rank=('rank_weight', 3.0)),
            0.5,
        )
    )
    assert 'its weight x 1' in text and 'rank_weight 3 -> 3' in text


def test_schedules_are_read_at_the_stated_epoch(folder, capsys):
    options = (
        '--batches',
        1,
        '--cfg-options',
        'model.losses.rank_weight.type=linear',
        'model.losses.rank_weight.end=10',
    )
    config = Config.fromfile(folder / 'kd.py')
    config.model.losses.rank_weight = {}
    config.dump(folder / 'scheduled.py')
    run(folder / 'scheduled.py', '--epoch', 5, *options)
    text = capsys.readouterr().out
    assert rows(text)['rank'][2].startswith('rank_weight 0.5 -> ')
    assert 'weights as in epoch 5' in text


def test_checkpoint_is_the_plain_students(folder, capsys):
    init_default_scope('mmpretrain')
    torch.save(MODELS.build(STUDENT).state_dict(), folder / 'student.pth')
    assert (
        run(
            folder / 'kd.py',
            '--batches',
            1,
            '--checkpoint',
            folder / 'student.pth',
        )
        == 0
    )
    text = capsys.readouterr().out
    assert f'of {folder / "student.pth"}' in text
    assert 'untrained' not in text


def test_config_without_distillation_is_refused(folder, capsys):
    assert run(folder / 'plain.py') == 1
    error = capsys.readouterr().err
    assert 'plain.py has no distillation' in error
    assert "'ImageClassifier'" in error and 'KDClassifier' in error


def test_checkpoint_of_another_model_is_refused(folder, capsys):
    init_default_scope('mmpretrain')
    other = copy.deepcopy(STUDENT)
    other['backbone']['depth'] = 14
    torch.save(MODELS.build(other).state_dict(), folder / 'other.pth')
    checkpoint = folder / 'other.pth'
    assert run(folder / 'kd.py', '--checkpoint', checkpoint) == 1
    error = capsys.readouterr().err
    assert f'checkpoint {checkpoint} does not fit the model' in error
    assert 'unexpected key' in error and len(error) < 1500


def test_data_without_a_batch_are_refused(folder, capsys):
    config = Config.fromfile(folder / 'kd.py')
    config.train_dataloader.update(batch_size=13, drop_last=True)
    config.dump(folder / 'no_batch.py')
    assert run(folder / 'no_batch.py') == 1
    error = capsys.readouterr().err
    assert 'must give a batch, and gives none of its 12 samples' in error


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['--batches', '0'], '--batches must be at least 1, got 0'),
        (['--share', '1'], '--share must be in (0, 1), got 1.0'),
        (['--epoch', '0'], '--epoch is counted from 1, got 0'),
    ],
)
def test_wrong_numbers_are_told(capsys, arguments, message):
    with pytest.raises(SystemExit):
        calibrate.parse_args(['config.py', *arguments])
    assert message in capsys.readouterr().err
