"""Who has classifiers alone needs neither MMDetection nor pycocotools."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABSENT = ('mmdet', 'pycocotools')
# Those that a page with boxes alone needs, which import them when asked.
OF_BOXES = {'detections.py', 'examples.py', 'verdicts.py'}
CODE = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None
from mmrkkd.commands import figure, report
raise SystemExit(report.main(sys.argv[1:]))
"""


@pytest.mark.parametrize('layer', ['evaluation', 'report'])
def test_no_module_imports_them_at_once(layer):
    for path in sorted((ROOT / 'mmrkkd' / layer).rglob('*.py')):
        names = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        if path.name not in OF_BOXES:
            found = {str(name).split('.')[0] for name in names}
            assert not found & set(ABSENT), path


@pytest.mark.slow
def test_a_report_is_made_without_them(tmp_path):
    folders = []
    for name, score in (('one', 50.0), ('two', 52.0)):
        for seed in (0, 1):
            cell = tmp_path / name / f'seed{seed}'
            cell.mkdir(parents=True)
            (cell / 'cell_config.py').write_text("model = dict(type='X')")
            result = dict(
                label=name,
                seed=seed,
                metric='accuracy/top1',
                last=score + seed * seed,
                best=score,
            )
            (cell / 'result.json').write_text(json.dumps(result))
        folders.append(str(tmp_path / name))
    done = subprocess.run(
        [sys.executable, '-c', CODE, *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / 'one' / 'report.html').read_text()
    assert 'two minus one: +2.00 % accuracy, +2.00 to +2.00 over 2' in text
