"""Every block of Python in the documentation compiles and says what is true.

Settings are executed, their types looked up and their options compared with
what those types take; programs run, here or in a test of their own.
"""

import ast
import dataclasses
import inspect
import pkgutil
import re
import warnings

import pytest
import torch
from doc_blocks import ROOT, Block, blocks, spans
from mmengine.config import Config

from mmrkkd.distillers import build_teacher
from mmrkkd.distillers.readers import heads, query_heads
from mmrkkd.losses import LOSSES, build_loss, build_schedule
from mmrkkd.losses.placement import Placement
from mmrkkd.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    TRANSFORMS,
)

BLOCKS = [found for found in blocks() if found.language == 'python']
# Programs that a test elsewhere runs as they stand: page -> that test.
ELSEWHERE = {
    'docs/en/add_a_head.md': 'tests/test_models/test_add_a_head.py',
    'docs/en/add_a_loss.md': 'tests/test_losses/test_add_a_loss.py',
    'docs/en/features.md': (
        'tests/test_losses/test_feature/test_worked_example.py'
    ),
    # With the student, the configs and the teacher that it needs.
    'docs/en/deploy.md': 'tests/test_docs/test_doc_runs.py',
    'docs/en/get_started.md': 'tests/test_docs/test_doc_runs.py',
    'docs/en/robust_runs.md': 'tests/test_docs/test_doc_runs.py',
}
# Types that a page has its reader write.
OWN = ('mmrkkd.CosineLoss', 'CosineLoss')
REGISTRIES = (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    TRANSFORMS,
)
TWO_COLUMNS = re.compile(r'^# Before: .*?(?=# After:)')


def sources(found):
    """The block's source, or both of two that stand side by side."""
    columns = TWO_COLUMNS.match(found.text)
    if not columns:
        return [found.text]
    width, lines = len(columns[0]), found.text.splitlines()
    return [
        '\n'.join(line[:width] for line in lines),
        '\n'.join(line[width:] for line in lines),
    ]


CASES = [
    pytest.param(found, source, id=f'{found}-{number}')
    for found in BLOCKS
    for number, source in enumerate(sources(found))
]


def is_settings(tree):
    """Whether a block only sets names, as a config does."""
    return all(isinstance(node, ast.Assign) for node in tree.body)


def test_the_documentation_has_python():
    assert len(BLOCKS) > 30


@pytest.mark.parametrize(('found', 'source'), CASES)
def test_types_and_options_exist(found, source):
    check_calls(ast.parse(source), str(found))


def check_calls(tree, where):
    """Compares dict(type=...) and calls of losses with what they name."""
    for node in ast.walk(tree):
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ):
            continue
        options = {word.arg: word.value for word in node.keywords if word.arg}
        kind = node.func.id
        if kind == 'dict' and isinstance(options.get('type'), ast.Constant):
            kind = options.pop('type').value
            options.pop('_delete_', None)
        elif kind not in LOSSES:
            continue
        called = known(kind)
        if called is not None:
            unknown = set(options) - parameters(called)
            assert not unknown, f'{where}: {kind} takes no {unknown}'


def known(name):
    """What a type of ours is; None for one of other packages."""
    if name in LOSSES:
        return LOSSES[name]
    if name in OWN or not name.startswith('mmrkkd.'):
        return None
    found = [
        kind
        for registry in REGISTRIES
        if (kind := registry.get(name)) is not None
    ]
    assert found, f'{name} is in no registry'
    return found[0]


def parameters(called):
    """Names that a class takes, its bases' where it hands them on."""
    names = set()
    if issubclass(called, tuple(LOSSES.values())):
        # Where it applies every loss may say.
        names |= {field.name for field in dataclasses.fields(Placement)}
    for base in inspect.getmro(called):
        own = inspect.signature(base.__init__).parameters.values()
        names |= {one.name for one in own}
        if all(one.kind is not one.VAR_KEYWORD for one in own):
            break
    return names


NAMES = sorted(
    {
        (page, name)
        for page, text in [
            *spans(),
            *((found.page, found.text) for found in blocks()),
        ]
        for name in re.findall(r'(?<![\w./-])mmrkkd(?:\.[A-Za-z]\w*)+', text)
    }
)


@pytest.mark.parametrize(('page', 'name'), NAMES, ids=map(': '.join, NAMES))
def test_the_name_exists(page, name):
    if name.count('.') == 1 and name.split('.')[1][0].isupper():
        assert name in OWN or known(name) is not None
        return
    # An old name of ours would still resolve, with a warning.
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert pkgutil.resolve_name(name) is not None


SPANS = sorted({(page, text) for page, text in spans() if '(' in text})


@pytest.mark.parametrize(('page', 'text'), SPANS, ids=map(': '.join, SPANS))
def test_settings_within_a_line_exist(page, text):
    try:
        tree = ast.parse(text)
    except SyntaxError:
        # A shape, a formula or a command.
        return
    check_calls(tree, page)


@pytest.mark.parametrize(
    ('found', 'source'),
    [
        case
        for case in CASES
        if is_settings(ast.parse(case.values[1]))
        and '_base_' not in case.values[1]
    ],
)
def test_settings_can_be_read(found, source):
    # dict(...) is a dict of which something is left out.
    source = source.replace('(...)', '()')
    values = dict(Config.fromstring(source, '.py'))
    model = values.get('model') or {}
    for losses in filter(None, [values.get('losses'), model.get('losses')]):
        for config in losses if isinstance(losses, list) else [losses]:
            assert isinstance(build_loss(config), torch.nn.Module)
    if 'rank_weight' in values:
        for node in ast.parse(source).body:
            weight = eval(compile(ast.Expression(node.value), '', 'eval'))
            assert build_schedule('rank_weight', weight) is not None
    if 'teacher' in values:
        names = inspect.signature(build_teacher).parameters
        assert set(values['teacher']) <= set(names)


@pytest.mark.parametrize(
    ('found', 'source'), [c for c in CASES if '_base_' in c.values[1]]
)
def test_a_config_around_a_student_is_a_config(found, source, tmp_path):
    plain = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    if 'KDClassifier' in source:
        plain = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
    (tmp_path / 'my_student.py').write_text(f'_base_ = {plain!r}\n')
    path = tmp_path / 'distil.py'
    path.write_text(source)
    config = Config.fromfile(path)
    if 'mmrkkd.' in source:
        assert MODELS.get(config.model.type) is not None
        assert 'backbone' in config.model.student
        assert set(config.model) <= parameters(
            MODELS.get(config.model.type)
        ) | {'type'}
        assert build_loss(config.model.losses) is not None


PROGRAMS = [c for c in CASES if not is_settings(ast.parse(c.values[1]))]


@pytest.mark.parametrize(('found', 'source'), PROGRAMS)
def test_the_program_runs(found, source, monkeypatch):
    if found.page in ELSEWHERE:
        test = ROOT / ELSEWHERE[found.page]
        assert found.page.rsplit('/')[-1] in test.read_text()
        return
    # Heads that a page makes known are forgotten afterwards.
    tables = {
        'register_head(': (heads, 'HEADS'),
        'register_query_head(': (query_heads, 'QUERY_HEADS'),
    }
    for module, table in tables.values():
        monkeypatch.setattr(module, table, dict(getattr(module, table)))
    logits = torch.randn(4, 10, requires_grad=True)
    names = dict(
        student_logits=logits,
        teacher_logits=torch.randn(4, 10),
        cross_entropy=logits.logsumexp(-1).mean(),
    )
    exec(compile(source, str(found), 'exec'), names)
    called = [name for name in (*tables, '.backward(') if name in source]
    assert called, f'{found}: say here, or in ELSEWHERE, what it must do'
    for name in called:
        if name in tables:
            module, table = tables[name]
            assert 'MyHead' in getattr(module, table)
        else:
            assert torch.isfinite(logits.grad).all()


def test_a_wrong_option_is_noticed():
    for text in ("dict(type='mmrkkd.KDLoss', warmth=2)", 'KDLoss(warmth=2)'):
        with pytest.raises(AssertionError, match='takes no'):
            check_calls(ast.parse(text), 'page')


def test_a_wrong_type_is_noticed():
    with pytest.raises(AssertionError, match='in no registry'):
        check_calls(ast.parse("dict(type='mmrkkd.KLDLoss')"), 'page')


def test_two_columns_are_two_sources():
    text = '# Before: a   # After: b\nx = 1         y = 2'
    found = sources(Block('page', 1, 'python', text))
    assert [source.split() for source in found] == [
        ['#', 'Before:', 'a', 'x', '=', '1'],
        ['#', 'After:', 'b', 'y', '=', '2'],
    ]
