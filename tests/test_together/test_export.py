"""Every checkpoint, at every moment, is a plain student's.

Runs of a classifier and of a detector are interrupted between two
checkpoints and resumed. Whatever they save is loaded strictly into students
that stock MMPretrain and MMDetection build, published by their scripts, and
exported.
"""

import functools
import itertools
import math
import re
import runpy
import sys
import time
from collections import Counter

import onnx
import onnxruntime
import pytest
import torch
from conftest import load_tool
from export_helpers import (
    KINDS,
    METHODS,
    OnSamples,
    checkpoints,
    digest,
    interrupted_run,
    parts,
    plain_student,
    read,
    tensors,
)
from mmdet.testing import demo_mm_inputs
from mmengine.utils import get_installed_path
from small_classifiers import trained_beside_ema

from mmrkkd.checkpoint.fetch import file_sha256

# Tracing a detector says of every branch that it is fixed.
pytestmark = pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')


def each(names, *cases):
    """A test of each case; those of a detector are slow."""
    return pytest.mark.parametrize(
        names,
        [
            pytest.param(
                *case, marks=[pytest.mark.slow] * (case[0] == 'detector')
            )
            for case in cases
        ],
    )


each_kind = each('kind', *((kind,) for kind in KINDS))
each_run = each(('kind', 'method'), *itertools.product(KINDS, METHODS))
each_part = each(
    ('kind', 'part'),
    ('classifier', 'whole'),
    ('detector', 'features'),
    ('detector', 'box_head'),
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run of a kind and a method, made when it is first asked for."""

    @functools.cache
    def run(kind, method):
        folder = tmp_path_factory.mktemp(f'{kind}_{method}')
        return interrupted_run(kind, method, folder)

    return run


def loaded(kind, state):
    """A stock student with these weights, and no others."""
    student = plain_student(kind)
    assert list(state) == list(student.state_dict())
    student.load_state_dict(state, strict=True)
    return student


def assert_same_weights(state, expected):
    assert list(state) == list(expected)
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


# -- what a run saves ------------------------------------------------------


@each_run
def test_all_files_load_strictly_into_the_stock_student(trained, kind, method):
    run = trained(kind, method)
    found = []
    for moment in (run.interrupted, run.finished):
        files = checkpoints(moment)
        for path in files.values():
            loaded(kind, read(path)['state_dict'])
        names = {re.sub('best_.*_iter_[24]', 'best', name) for name in files}
        found.append({re.sub('-[0-9a-f]{8}', '-sha', name) for name in names})
    assert found[0] == {'iter_2.pth', 'best.pth'}
    # MMEngine publishes the last and the best one at the end.
    published = {'iter_4-sha.pth', 'best-sha.pth'}
    assert found[1] == found[0] | {'iter_4.pth'} | published


@each_run
def test_the_resumed_run_goes_on_with_the_student(trained, kind, method):
    run = trained(kind, method)
    before = read(run.interrupted / 'iter_2.pth')
    after = read(run.finished / 'iter_4.pth')
    assert (before['meta']['iter'], after['meta']['iter']) == (2, 4)
    assert [
        key
        for key, value in after['state_dict'].items()
        if key.endswith('conv1.weight')
        and torch.equal(value, before['state_dict'][key])
    ] == []
    if 'ema' not in method:
        assert_same_weights(after['state_dict'], run.model.state_dict())


@each_kind
def test_an_average_and_its_origin_are_both_plain_students(trained, kind):
    run = trained(kind, 'ctkd_ema')
    for path in (
        run.interrupted / 'iter_2.pth',
        run.finished / 'iter_4.pth',
        *run.finished.glob('best_*_iter_?.pth'),
    ):
        content = read(path)
        origin = trained_beside_ema(content)
        loaded(kind, origin)
        average = content['state_dict']
        key = 'backbone.conv1.weight'
        assert not torch.equal(origin[key], average[key])
    last = read(run.finished / 'iter_4.pth')
    assert_same_weights(trained_beside_ema(last), run.model.state_dict())


@each_run
def test_no_file_holds_anything_of_the_teacher_or_of_ours(
    trained, kind, method
):
    run = trained(kind, method)
    assert run.teachers
    for moment in (run.interrupted, run.finished):
        for path in checkpoints(moment).values():
            held = {digest(tensor) for tensor in tensors(read(path))}
            assert held
            assert not held & run.teachers
            # A stock environment could not read an object of our classes.
            named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            assert not [name for name in named if 'mmrkkd' in name]


# -- publishing ------------------------------------------------------------


def publish(monkeypatch, kind, source, folder, *options):
    """Runs the stock script; returns the path of what it wrote."""
    package = get_installed_path(KINDS[kind])
    script = f'{package}/.mim/tools/model_converters/publish_model.py'
    # From torch 2.6 on, the scripts cannot read a log history without it.
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    out = folder / 'student.pth'
    monkeypatch.setattr(sys, 'argv', [script, str(source), str(out), *options])
    runpy.run_path(script, run_name='__main__')
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    # MMDetection's does not wait for the end of its `mv`.
    end = time.monotonic() + 20
    while not (found := list(folder.glob('student*-*.pth'))):
        assert time.monotonic() < end, 'nothing was published'
        time.sleep(0.01)
    (path,) = found
    return path


@each_run
def test_stock_scripts_publish_the_student_alone(
    trained, kind, method, tmp_path, monkeypatch
):
    run = trained(kind, method)
    source = run.interrupted / 'iter_2.pth'
    path = publish(monkeypatch, kind, source, tmp_path)
    content = torch.load(path, weights_only=True)
    # MMPretrain's removes what it knows, MMDetection's what it does not.
    beside = {'random_state', 'distiller', 'distiller_ema'} & set(read(source))
    left = beside if kind == 'classifier' else set()
    assert set(content) == {'meta', 'state_dict'} | left
    loaded(kind, content['state_dict'])
    assert_same_weights(content['state_dict'], read(source)['state_dict'])
    held = {digest(tensor) for tensor in tensors(content)}
    assert not held & run.teachers


def test_mmpretrains_script_can_publish_the_weights_beside_an_average(
    trained, tmp_path, monkeypatch
):
    run = trained('classifier', 'ctkd_ema')
    source = run.interrupted / 'iter_2.pth'
    path = publish(monkeypatch, 'classifier', source, tmp_path, '--no-ema')
    state = torch.load(path, weights_only=True)['state_dict']
    assert_same_weights(state, trained_beside_ema(read(source)))
    loaded('classifier', state)


@each_run
def test_what_mmengine_publishes_at_the_end_are_weights_only(
    trained, kind, method
):
    run = trained(kind, method)
    files = sorted(run.finished.glob('*-*.pth'))
    assert len(files) == 2
    for path in files:
        source = path.with_name(path.name[: -len('-12345678.pth')] + '.pth')
        content = torch.load(path, weights_only=True)
        assert set(content) == {'meta', 'state_dict'}
        assert_same_weights(content['state_dict'], read(source)['state_dict'])


@each_run
def test_our_tool_publishes_weights_and_what_describes_them(
    trained, kind, method, tmp_path, capsys
):
    run = trained(kind, method)
    source = run.interrupted / 'iter_2.pth'
    load_tool('publish_model').main([str(source), f'{tmp_path}/student.pth'])
    (path,) = tmp_path.iterdir()
    assert str(path) in capsys.readouterr().out
    assert path.name == f'student-{file_sha256(path)[:8]}.pth'
    content = torch.load(path, weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    assert content['meta']['iter'] == 2
    assert content['meta']['dataset_meta']['classes']
    assert 'cfg' not in content['meta']
    loaded(kind, content['state_dict'])
    assert_same_weights(content['state_dict'], read(source)['state_dict'])
    own = {digest(tensor) for tensor in content['state_dict'].values()}
    assert {digest(tensor) for tensor in tensors(content)} == own


@each_kind
def test_our_tool_can_publish_the_weights_beside_an_average(
    trained, kind, tmp_path
):
    tool = load_tool('publish_model')
    source = trained(kind, 'ctkd_ema').interrupted / 'iter_2.pth'
    path = tool.publish(str(source), str(tmp_path / 'student'), ema=False)
    state = torch.load(path, weights_only=True)['state_dict']
    assert_same_weights(state, trained_beside_ema(read(source)))
    with pytest.raises(ValueError, match='--no-ema leaves out an average'):
        tool.publish(str(path), str(tmp_path / 'again'), ema=False)
    assert list(tmp_path.iterdir()) == [path]


def test_our_tool_refuses_what_has_no_weights():
    with pytest.raises(ValueError, match='no state_dict'):
        load_tool('publish_model').published(dict(optimizer={}))


# -- export ----------------------------------------------------------------


def part_of_a_checkpoint(trained, kind, part):
    """A part of a student from the middle of a run, and its inputs.

    Returns:
        The part, an example to export it with, and an unseen input of one
        sample more.
    """
    path = trained(kind, 'ctkd_ema').interrupted / 'iter_2.pth'
    student = loaded(kind, read(path)['state_dict'])
    module, (samples, *shape) = parts(kind, student)[part]
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(samples, *shape, generator=generator)
    unseen = torch.randn(samples + 1, *shape, generator=generator)
    return module, example, unseen


def outputs_of(module, *inputs):
    with torch.no_grad():
        outputs = module(*inputs)
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


@each_part
def test_torchscript_computes_what_the_student_does(
    trained, tmp_path, kind, part
):
    module, example, unseen = part_of_a_checkpoint(trained, kind, part)
    torch.jit.trace(module, example).save(tmp_path / 'student.pt')
    exported = torch.jit.load(tmp_path / 'student.pt')
    ours, expected = (outputs_of(one, unseen) for one in (exported, module))
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected):
        assert torch.equal(one, other)
        assert other.std() > 0


def export_onnx(module, example, path):
    """By the exporter that needs nothing but the package onnx."""
    torch.onnx.export(
        module,
        (example,),
        path,
        dynamo=False,
        input_names=['inputs'],
        dynamic_axes=dict(inputs={0: 'samples'}),
    )
    onnx.checker.check_model(str(path), full_check=True)


def rounding(module):
    """How far two float32 ways to compute a module may be apart.

    A sum of K products in another order is off by about sqrt(K) u. So are
    both ways, in each layer, in any direction.
    """
    terms = sum(
        2 * weight[0].numel()
        for weight in module.parameters()
        if weight.dim() > 1
    )
    return terms**0.5 * torch.finfo(torch.float32).eps / 2


@each_part
def test_onnx_computes_what_the_student_does(trained, tmp_path, kind, part):
    module, example, unseen = part_of_a_checkpoint(trained, kind, part)
    export_onnx(module, example, tmp_path / 'student.onnx')
    session = onnxruntime.InferenceSession(
        tmp_path / 'student.onnx', providers=['CPUExecutionProvider']
    )
    ours = session.run(None, dict(inputs=unseen.numpy()))
    expected = outputs_of(module, unseen)
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected):
        error = (torch.from_numpy(one) - other).abs().max()
        budget = rounding(module) * other.abs().max()
        assert error <= budget, (float(error), float(budget))


# -- export without a checkpoint -------------------------------------------


def live_and_plain(trained, kind):
    """A distiller at the end of its run, and its student built anew."""
    live = trained(kind, 'ctkd').model
    return live, loaded(kind, live.state_dict())


def numbers_in_torchscript(model, images):
    """Weights and constants that a traced model needs, and the outputs."""
    traced = torch.jit.trace(model, images, check_trace=False)
    # Frozen, a graph holds what its outputs need and no more.
    frozen = torch.jit.freeze(traced, optimize_numerics=False)
    numbers = Counter(
        digest(node.t('value'))
        for node in frozen.graph.findAllNodes('prim::Constant')
        if node.hasAttribute('value') and node.kindOf('value') == 't'
    )
    return numbers, outputs_of(frozen, images)


@each_kind
def test_a_live_distiller_traces_to_the_student_alone(trained, kind):
    live, student = live_and_plain(trained, kind)
    weights = {digest(weight) for weight in student.parameters()}
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 96)
    if kind == 'detector':
        data = demo_mm_inputs(2, [[3, 64, 96]] * 2, num_classes=3)
        samples = student.data_preprocessor(data)['data_samples']
        live, student = (
            OnSamples(model, samples).eval() for model in (live, student)
        )
    numbers, outputs = numbers_in_torchscript(live, images)
    assert weights <= set(numbers)
    expected, _ = numbers_in_torchscript(student, images)
    assert numbers == expected
    for one, other in zip(outputs, outputs_of(student, images), strict=True):
        assert torch.equal(one, other)


def numbers_in_onnx(model, path):
    export_onnx(model, torch.randn(2, 3, 32, 32), path)
    graph = onnx.load(path).graph
    weights = [onnx.numpy_helper.to_array(one) for one in graph.initializer]
    # Tensors that do not ask for a gradient may become constants.
    weights += [
        onnx.numpy_helper.to_array(attribute.t)
        for node in graph.node
        for attribute in node.attribute
        if attribute.HasField('t')
    ]
    return Counter((weight.shape, weight.tobytes()) for weight in weights)


def test_onnx_of_a_live_classifier_holds_the_student_alone(trained, tmp_path):
    live, student = live_and_plain(trained, 'classifier')
    numbers = numbers_in_onnx(live, tmp_path / 'live.onnx')
    assert digest(student.head.fc.weight) in numbers
    assert numbers == numbers_in_onnx(student, tmp_path / 'student.onnx')
    count = sum(
        math.prod(shape) * times for (shape, _), times in numbers.items()
    )
    # Batch norm is folded into the convolutions: four vectors become one.
    assert count < sum(weight.numel() for weight in student.parameters())
