"""The page of the models: published numbers, configs, our own results."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'model_zoo.py'
FOLDER = ROOT / 'configs' / 'classification'
CONFIG = (
    'configs/classification/cifar100/resnet56_resnet20/'
    'kd_resnet56-resnet20_1xb64-240e_cifar100.py'
)
RUN = dict(config=CONFIG, top1=[70.0], commit='abc', hardware='a GPU')


@pytest.fixture(scope='module')
def zoo():
    spec = importlib.util.spec_from_file_location('model_zoo', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def published():
    return yaml.safe_load((FOLDER / 'published.yml').read_text())


@pytest.mark.slow
def test_page_is_up_to_date():
    subprocess.run([sys.executable, TOOL, '--check'], check=True)


def test_stale_page_is_noticed(zoo, tmp_path, monkeypatch):
    page = tmp_path / 'model_zoo.md'
    monkeypatch.setattr(zoo, 'PAGE', page)
    monkeypatch.setattr(sys, 'argv', ['model_zoo.py', '--check'])
    page.write_text('of last week')
    with pytest.raises(SystemExit, match='is stale: run python model_zoo'):
        zoo.main()
    monkeypatch.setattr(sys, 'argv', ['model_zoo.py'])
    zoo.main()
    assert page.read_text(encoding='utf-8') == zoo.render()


def test_links_of_the_page_lead_to_files(zoo):
    targets = [part.split(')')[0] for part in zoo.render().split('](')[1:]]
    assert len(targets) > 250
    for target in set(targets):
        assert (zoo.PAGE.parent / target).exists(), target


def test_every_pair_of_the_configs_stands_in_the_tables(published):
    for folder, part in published['datasets'].items():
        pairs = {
            path.name
            for path in (FOLDER / folder).iterdir()
            if path.is_dir() and path.name not in {'_base_', 'takd'}
        }
        pairs.discard('__pycache__')
        assert set(part['pairs']) == pairs


def test_every_published_number_has_a_source(published):
    for part in published['datasets'].values():
        columns = part.get('columns', {})
        for row in (part['models'], *part['pairs'].values()):
            for name, value in row.items():
                marks = value[1:] if isinstance(value, list) else []
                assert set(marks) <= set(published['marks'])
                assert marks or 'source' in part or name in columns


def test_what_no_paper_prints_is_not_called_published(published):
    pairs = published['datasets']['cifar100']['pairs']
    # The ranking paper's table of these pairs is lost: of its numbers the
    # mean is known, and that is no number of any pair.
    ranked = {'rkkd', 'ctkd-rk', 'dkd-rk', 'mlkd-rk'}
    for pair in (
        'vgg13_vgg8',
        'wrn40-2_wrn16-2',
        'resnet56_resnet20',
        'resnet110_resnet32',
        'resnet110_resnet20',
    ):
        assert not ranked & set(pairs[pair])
    for pair in ('resnet32x4_shufflenetv1', 'wrn40-2_shufflenetv1'):
        assert 'ml' in pairs[pair]['lskd']
    assert 'r8' in pairs['resnet32x4_resnet8x4']['rkkd']
    imagenet = published['datasets']['imagenet']['pairs']
    assert not any(ranked & set(row) for row in imagenet.values())


def test_published_ap_has_a_source_and_a_config(zoo):
    facts = yaml.safe_load((zoo.DETECTION / 'published.yml').read_text())
    for section in facts['sections']:
        for title, method, *numbers in section['rows']:
            marks = {value for value in numbers if isinstance(value, str)}
            assert marks <= set(facts['marks'])
            assert bool(marks) == bool(numbers), title
            # MMDetection's own configs are not ours to link.
            assert method or marks, title
    page = zoo.render_detection(facts)
    (row,) = [line for line in page.splitlines() if '[FGFI]' in line]
    assert 'fgfi_faster-rcnn_r50-mv2_fpn_180k_coco.py' in row
    assert [cell.strip() for cell in row.split('|')[2:5]] == [
        '31.16 <sup>r5</sup>',
        '50.68',
        '32.92',
    ]
    facts['sections'][0]['rows'] = [['X', 'xkd']]
    with pytest.raises(ValueError, match='no config xkd_faster-rcnn'):
        zoo.render_detection(facts)


def write(folder, *results):
    for number, result in enumerate(results):
        path = folder / f'zoo_{number}.json'
        path.write_text(json.dumps(result))
    return folder


def test_own_results_are_mean_and_deviation(zoo, tmp_path):
    # Mean 70.5, deviation sqrt(((-.5)^2 + .5^2) / 1) = 0.71.
    run = dict(RUN, top1=[70.0, 71.0])
    cells = zoo.read_results(write(tmp_path, run))
    assert cells == {CONFIG: '**70.50 ± 0.71** (2)'}


def test_own_result_stands_below_the_published_number(
    zoo, tmp_path, monkeypatch
):
    results = zoo.read_results(write(tmp_path, RUN))
    monkeypatch.setattr(zoo, 'read_results', lambda: results)
    cell = f'[70.66](../../{CONFIG})<br>**70.00** (1)'
    assert cell in zoo.render()


@pytest.mark.parametrize(
    ('results', 'message'),
    [
        ([dict(config=CONFIG, top1=[70.0])], 'missing: .*commit.*hardware'),
        ([dict(RUN, top1=[])], 'missing: runs'),
        ([dict(RUN, config='configs/none.py')], 'there is no config'),
        ([RUN, RUN], 'has another file'),
    ],
)
def test_unusable_result_is_refused(zoo, tmp_path, results, message):
    with pytest.raises(ValueError, match=message):
        zoo.read_results(write(tmp_path, *results))


def test_result_without_a_cell_is_not_dropped(zoo, monkeypatch):
    config = 'configs/rkkd_fasterrcnn_r50_mv2_coco.py'
    monkeypatch.setattr(zoo, 'read_results', lambda: {config: '**1**'})
    with pytest.raises(ValueError, match='no table has a cell'):
        zoo.render()
