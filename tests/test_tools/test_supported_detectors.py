"""The page that says which of MMDetection's configs distil."""

import sys
from pathlib import Path

import mmdet
import pytest
from conftest import load_tool
from mmengine.config import Config
from mmengine.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_models'))

import small_dense_heads
import small_query_heads
import small_roi_heads

from mmrkkd.distillers.readers import build_reader

TOOLS = str(Path(__file__).resolve().parents[2] / 'tools')
sys.path.insert(0, TOOLS)

from config_reading import merged, read_config  # noqa: E402

# tools/test.py must not stand in the way of the standard library's test.
sys.path.remove(TOOLS)

SMALL = [
    (small_dense_heads.FAMILIES, small_dense_heads.dense_config),
    (small_query_heads.FAMILIES, small_query_heads.query_config),
    (small_roi_heads.FAMILIES, small_roi_heads.roi_config),
]
# MMEngine and the tool read these in their own ways: a base that is changed,
# values of the base, a list made by a loop.
READ = (
    'bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_'
    'test-mot17halfval.py',
    'solov2/solov2_r50_fpn_1x_coco.py',
    'sparse_rcnn/sparse-rcnn_r101_fpn_300-proposals_crop-ms-480-800-3x_coco'
    '.py',
)


@pytest.fixture(scope='module')
def tool():
    return load_tool('supported_detectors')


def run(tool, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['supported_detectors.py', *arguments])
    tool.main()


@pytest.mark.slow
def test_page_is_up_to_date(tool, monkeypatch):
    if f'MMDetection {mmdet.__version__} ships' not in tool.PAGE.read_text():
        pytest.skip('the page is of another version of MMDetection')
    run(tool, monkeypatch, '--check')


def test_stale_page_is_noticed(tool, monkeypatch, tmp_path):
    page = tmp_path / 'page.md'
    monkeypatch.setattr(tool, 'judged_configs', lambda: {})
    page.write_text('of last week')
    with pytest.raises(SystemExit, match='is stale: run python supported_det'):
        run(tool, monkeypatch, '--check', '--write', str(page))
    run(tool, monkeypatch, '--write', str(page))
    assert page.read_text() == tool.render()
    run(tool, monkeypatch, '--check', '--write', str(page))


def test_each_config_is_listed(tool, monkeypatch, capsys):
    verdict = tool.Verdict('', 'CrowdDet', 'no order')
    found = {'a/b.py': tool.Verdict('grid', 'GFLHead'), 'a/c.py': verdict}
    monkeypatch.setattr(
        tool, 'judged_configs', lambda: {**found, 'd.py': None}
    )
    run(tool, monkeypatch, '--list')
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'a/b.py grid'
    assert lines[1] == 'a/c.py - (no order)'
    assert lines[2].startswith('d.py - (a base')


@pytest.mark.parametrize('name', READ)
def test_configs_are_read_as_mmengine_reads_them(tool, name):
    ours = read_config((tool.CONFIGS / name).resolve()).model
    theirs = Config.fromfile(tool.CONFIGS / name).model.to_dict()
    assert tool.judge(ours) == tool.judge(theirs)
    for part, value in theirs.items():
        assert tool.type_name(ours.get(part)) == tool.type_name(value)


def test_bases_are_merged_and_deleted():
    base = dict(a=dict(b=1, c=dict(d=2)), e=[dict(f=3)])
    changes = dict(a=dict(c=dict(_delete_=True, g=4)), e=[5])
    assert merged(base, changes) == dict(a=dict(b=1, c=dict(g=4)), e=[5])


def test_a_config_may_use_and_change_its_base(tmp_path):
    base, changed, plain = (tmp_path / f'{name}.py' for name in 'abc')
    base.write_text('model = dict(x=dict(y=1))\nother = dict(z=2)')
    changed.write_text(
        "_base_ = './a.py'\n"
        'model = dict(v={{_base_.other}}, w=_base_.model.x)\n'
        'del _base_.other\n'
    )
    plain.write_text("_base_ = ['./a.py']\nmodel = dict(u=3)")
    assert read_config(changed) == dict(
        model=dict(v=dict(z=2), w=dict(y=1), x=dict(y=1))
    )
    assert read_config(plain).model.u == 3
    assert read_config(plain).other == dict(z=2)


def test_crowded_and_text_heads_are_refused_by_name(tool):
    verdicts = [
        tool.judge(
            dict(type='CrowdDet', roi_head=dict(type='MultiInstanceRoIHead'))
        ),
        tool.judge(dict(type='GLIP', bbox_head=dict(type='ATSSVLFusionHead'))),
        tool.judge(dict(type='LAD', bbox_head=dict(type='LADHead'))),
        tool.judge(dict(type='RPN', rpn_head=dict(type='RPNHead'))),
        tool.judge(dict(type='SoftTeacher', detector=dict(type='FasterRCNN'))),
        tool.judge(dict(type='ImageClassifier', head=dict(type='ClsHead'))),
    ]
    assert not any(verdict.reader for verdict in verdicts)
    words = ['CrowdDet', 'text', 'teacher already', 'no classes', 'FasterRCNN']
    for verdict, word in zip(verdicts, [*words, 'no objects']):
        assert word in verdict.reason


@pytest.mark.slow
@pytest.mark.usefixtures('mmdet_scope', 'undrawn_weights')
def test_verdicts_are_what_the_readers_say(tool):
    for families, small in SMALL:
        for family in families:
            config = small(family)
            verdict = tool.judge(config)
            reader = build_reader('auto', MODELS.build(config))
            assert reader.name == verdict.reader, family


@pytest.mark.usefixtures('mmdet_scope', 'undrawn_weights')
def test_ssd_predicts_by_the_workaround_alone(tool):
    """Where MMDetection is mended, take the note off the page."""
    model = MODELS.build(small_dense_heads.dense_config('ssdlite')).eval()
    data = small_dense_heads.batch('ssdlite')
    with pytest.raises(AttributeError) as error:
        model.val_step(data)
    assert str(error.value) in tool.NO_PREDICTION
    model.bbox_head.loss_cls = None
    assert len(model.val_step(data)) == 2


@pytest.mark.slow
def test_every_kind_of_head_that_distils_is_tested(tool):
    """A head that MMDetection adds shows up here.

    RoI heads with several box heads are tested with one of them.
    """
    tested = tool.tested_configs()
    lacking = {
        verdict.head
        for verdict, names in tool.rows_of(tool.judged_configs()).items()
        if verdict.reader and not tested & set(names)
    }
    heads = {name.split(', ')[0] for name in lacking}
    assert heads <= {'StandardRoIHead', 'CascadeRoIHead', 'PISARoIHead'}
