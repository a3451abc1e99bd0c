"""The memory of a step of each method of a sweep."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / 'tests' / 'test_commands'))
from small_runs import draw_images, student_config  # noqa: E402

PROGRAM = ROOT / 'tools' / 'benchmarks' / 'sweep_memory.py'
SWEEP = """
cells:
  few: {config: student.py}
  many:
    config: student.py
    cfg_options: {train_dataloader.batch_size: 12}
"""


@pytest.mark.slow
def test_more_images_in_a_step_take_more_memory(tmp_path):
    draw_images(tmp_path / 'images')
    student_config(tmp_path / 'images').dump(tmp_path / 'student.py')
    (tmp_path / 'sweep.yml').write_text(SWEEP)
    done = subprocess.run(
        [sys.executable, PROGRAM, 'sweep.yml', '--steps', '1'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = re.findall(r'^\| (few|many) +\| +(\d+) \|$', done.stdout, re.M)
    (few, small), (many, large) = rows
    assert (few, many) == ('few', 'many')
    # 12 images beside 4: what is kept for the way back is most of it.
    assert 0 < 2 * int(small) <= int(large), done.stdout
