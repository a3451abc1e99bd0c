"""The ways to take a step that are compared run what they say they run."""

import copy
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import detector_config
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

from mmrkkd.distillers.running import is_logged

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = str(ROOT / 'tools' / 'benchmarks')
sys.path.insert(0, BENCHMARKS)

import chosen_ways  # noqa: E402
import mmrazor_ways  # noqa: E402
import pairs  # noqa: E402
import step as benchmark  # noqa: E402
import ways  # noqa: E402

sys.path.remove(BENCHMARKS)

SIZE = (1, 64, 64)


@pytest.fixture
def pair(tmp_path):
    """A small Faster R-CNN that teaches another, from a config file."""
    distiller = dict(
        type='mmrkkd.KDDetector',
        student=detector_config(num_classes=80),
        teacher=dict(config=detector_config(num_classes=80)),
        losses=dict(type='mmrkkd.RankKDLoss'),
    )
    path = tmp_path / 'small.py'
    Config(dict(model=distiller)).dump(path)
    scores = 'roi_head.bbox_head.fc_cls'
    return pairs.Pair(
        'small', 'mmdet', str(path), scores, pairs.SOFTMAX, SIZE, SIZE
    )


class Bench(ways.Bench):
    """Knows the teacher that it gave to a step."""

    teacher = None

    def distiller(self, *args, **teacher):
        model = super().distiller(*args, **teacher)
        self.teacher = model.teacher.model
        return model


def calls_of(bench, make, batch):
    """How often a step calls which part; that it moves the student."""
    step = make(bench)
    parts = dict(
        student_head=bench.student.roi_head.bbox_head,
        student_backbone=bench.student.backbone,
    )
    if bench.teacher is not None:
        parts.update(
            teacher_backbone=bench.teacher.backbone,
            teacher_rpn=bench.teacher.rpn_head,
            teacher_head=bench.teacher.roi_head.bbox_head,
        )
    calls = dict.fromkeys(parts, 0)

    def count(name, *_):
        calls[name] += 1

    for name, part in parts.items():
        part.register_forward_pre_hook(partial(count, name))
    before = [each.clone() for each in bench.student.parameters()]
    step(batch)
    after = bench.student.parameters()
    assert any(not torch.equal(*both) for both in zip(before, after))
    return calls


ALONE = dict(student_head=1, student_backbone=1)
OURS = dict(**ALONE, teacher_backbone=1, teacher_rpn=0, teacher_head=1)


@pytest.mark.parametrize(
    'make, expected',
    [
        (ways.alone, ALONE),
        (ways.with_teacher, OURS),
        (ways.with_dot, OURS),
        (ways.in_float32, OURS),
        (ways.plain_ranking, OURS),
        (ways.whole_teacher, dict(OURS, teacher_rpn=1)),
        (ways.head_twice, dict(OURS, student_head=2)),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_a_way_runs_what_it_is_named_for(pair, make, expected, monkeypatch):
    # float32 has no digits for the tiny rate of the benchmark.
    monkeypatch.setattr(ways, 'RATE', 0.1)
    batch = pairs.batch(pair, SIZE)
    with DefaultScope.overwrite_default_scope('mmdet'):
        bench = Bench(pair, 'cpu')
        bench.precision = 'float32'
        assert calls_of(bench, make, batch) == expected


def test_mmrazor_compares_what_ours_does(pair):
    """Its PKD of the neck is ours; its KL is of each model's own boxes."""
    pytest.importorskip('mmrazor', reason='MMRazor 1.0.0 is not installed')
    batch = pairs.batch(pair, SIZE)
    with DefaultScope.overwrite_default_scope('mmdet'):
        bench = Bench(pair, 'cpu')
        ours = mmrazor_ways.pkd_in_float32(bench).distiller
        model = mmrazor_ways.mmrazor_pkd(bench).model
        model.teacher.load_state_dict(ours.teacher.model.state_dict())
        data = bench.student.data_preprocessor(batch, True)
        expected = ours(**copy.deepcopy(data), mode='loss')['loss_pkd']
        terms = model(**data, mode='loss')
    found = [value for key, value in terms.items() if 'pkd' in key]
    assert len(found) == 4 and expected > 0
    torch.testing.assert_close(sum(found), expected)


def test_without_mmrazor_there_are_no_ways_of_it(monkeypatch):
    pair = pairs.PAIRS['faster_rcnn']
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert mmrazor_ways.ways_of(pair) == {}
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    assert mmrazor_ways.mmrazor_kl in mmrazor_ways.ways_of(pair).values()
    assert mmrazor_ways.ways_of(pairs.PAIRS['cifar']) == {}


def test_a_checkpoint_has_the_size_of_its_weights():
    model = torch.nn.Linear(1024, 512, bias=False)
    assert benchmark.checkpoint_megabytes(None) is None
    assert benchmark.checkpoint_megabytes(model) == pytest.approx(2, rel=0.01)


def test_peaks_are_measured_in_a_process_with_the_same_options():
    argv = ['--pair', 'cifar', '--size', '2', '32', '32', '--device', 'cpu']
    argv += ['--ways', 'RKKD trained by DOT']
    peaks = benchmark.peaks_in_new_process('cifar', argv)
    assert list(peaks) == [ways.ALONE, 'RKKD trained by DOT']
    assert min(peaks.values()) >= 0


def test_steps_are_those_between_two_lines_of_the_log():
    chosen_ways.between_logs()
    try:
        assert not is_logged()
    finally:
        del MessageHub._instance_dict['step']


def test_the_layout_is_another_students():
    pair = pairs.PAIRS['cifar']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        bench = Bench(pair, 'cpu')
        step = ways.channels_last(bench)
        step(pairs.batch(pair, (2, 32, 32)))
    for model, last in (
        (step.distiller.student, True),
        (bench.student, False),
    ):
        weight = model.backbone.layer2[0].conv2.weight
        assert last == weight.is_contiguous(memory_format=torch.channels_last)


def test_chosen_ways_stand_beside_the_student_alone():
    found = ways.ways_of(pairs.PAIRS['cifar'], 'cpu')
    assert chosen_ways.chosen(found, None, dict(kd=len)) == found | dict(
        kd=len
    )
    chosen = chosen_ways.chosen(found, ['RKKD trained by DOT'], dict(kd=len))
    assert list(chosen) == [ways.ALONE, 'RKKD trained by DOT', 'kd']
    with pytest.raises(SystemExit, match="no 'RKK'; the ways: 'student al"):
        chosen_ways.chosen(found, ['RKK'], {})


def test_a_method_is_the_one_of_the_command_line(pair, monkeypatch):
    """As it crosses the heads, the teacher's scores the student's features."""
    monkeypatch.setattr(ways, 'RATE', 0.1)
    batch = pairs.batch(pair, SIZE)
    method = chosen_ways.method_of(pair, 'crosskd')
    with DefaultScope.overwrite_default_scope('mmdet'):
        bench = Bench(pair, 'cpu')
        bench.precision = 'float32'
        step = ways.by_method(method, bench)
        calls = calls_of(bench, lambda bench: step, batch)
    assert calls == dict(OURS, teacher_head=2)


def test_a_method_that_does_not_go_with_the_pair_ends_the_program():
    for pair in ('gfl', 'cifar'):
        with pytest.raises(SystemExit, match='no method .kd_giou. for a'):
            chosen_ways.method_of(pairs.PAIRS[pair], 'kd_giou')


def test_rows_of_maps_and_of_boxes():
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    rows = ways.rows_of([maps, maps[:, :, :1]])
    assert rows.shape == (12, 3)
    assert torch.equal(rows[1], maps[0, :, 0, 1])
    assert torch.equal(ways.rows_of([rows, rows]), torch.cat([rows, rows]))


def test_every_pair_has_its_config_and_its_batch():
    for pair in pairs.PAIRS.values():
        assert (pairs.CONFIGS / pair.config).is_file()
        images, *sides = pair.size('cpu', quick=True)
        batch = pairs.batch(pair, (images, *sides))
        assert len(batch['inputs']) == len(batch['data_samples']) == images
        assert batch['inputs'][0].shape == (3, *sides)
