"""The head and the reader that docs/en/add_a_head.md writes work."""

import importlib
import re
import sys
from pathlib import Path

import mmpretrain.models  # noqa: F401
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmpretrain.registry import MODELS as PRETRAIN
from mmpretrain.structures import DataSample

import mmrkkd.distillers.readers as package

PAGE = Path(__file__).parents[2] / 'docs' / 'en' / 'add_a_head.md'
HEAD, READER, CONFIG, TEST = re.findall(
    r'```python\n(.*?)```', PAGE.read_text(), re.S
)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """What the page's code defines, its reader among the readers."""
    init_default_scope('mmpretrain')
    (tmp_path / 'cells.py').write_text(READER)
    path = [*package.__path__, str(tmp_path)]
    monkeypatch.setattr(package, '__path__', path)
    monkeypatch.setattr(package, 'READERS', package._find_readers())
    names = dict(torch=torch)
    for code in (HEAD, CONFIG, TEST):
        exec(compile(code, str(PAGE), 'exec'), names)
    yield names
    PRETRAIN.module_dict.pop('CellClsHead')
    sys.modules.pop(f'{package.__name__}.cells')
    importlib.invalidate_caches()
    DefaultScope._instance_dict.clear()


def batch():
    torch.manual_seed(0)
    samples = [DataSample().set_gt_label(label) for label in (0, 4, 2)]
    return torch.randn(3, 3, 32, 32), samples


def test_the_example_is_found_and_passes_its_own_test(example):
    model = MODELS.build(example['model'])
    assert repr(model.reader) == 'cells'
    example['test_an_equal_teacher_has_nothing_to_teach'](model, *batch())


def test_the_example_matches_cell_for_cell(example):
    model = MODELS.build(example['model'])
    inputs, samples = batch()
    reader, student = model.reader, model.student.eval()
    with reader.tap(student) as taps:
        student(inputs, samples, mode='loss')
    teacher = model.teacher.model
    (match,) = reader.read(taps, student, teacher, inputs, samples)
    assert match.student_logits.shape == (3 * 8 * 8, 5)
    assert match.labels.tolist() == [0] * 64 + [4] * 64 + [2] * 64
    maps = teacher(inputs, mode='tensor')
    # Image 1, row 2, column 5.
    assert torch.equal(match.teacher_logits[64 + 2 * 8 + 5], maps[1, :, 2, 5])
    match.student_logits.sum().backward()
    assert student.head.conv.weight.grad.any()
    assert not student.head._forward_hooks


def test_the_example_refuses_other_heads(example):
    other = dict(
        example['classifier'],
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=5, in_channels=64
        ),
    )
    teacher = dict(config=other, allow_random_weights=True)
    with pytest.raises(TypeError, match='teacher ImageClassifier has no Cell'):
        MODELS.build(dict(example['model'], teacher=teacher))


def test_the_example_comes_before_the_general_readers(example):
    model = MODELS.build(example['classifier'])
    assert package.build_reader('auto', model).name == 'cells'
