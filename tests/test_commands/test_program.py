"""The program mmrkkd: its commands, its help, where nothing is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

import mmrkkd
from mmrkkd.commands import program
from mmrkkd.commands.program import COMMANDS, main

ROOT = Path(__file__).parents[2]


def test_help_tells_every_command(capsys):
    assert main(['--help']) == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f'  {name} ' in text and command.what in text
    assert all(len(line) < 80 for line in text.splitlines())


def test_without_a_command_help_is_an_error(capsys):
    assert main([]) == 2
    assert 'Usage: mmrkkd COMMAND' in capsys.readouterr().out


def test_version(capsys):
    assert main(['--version']) == 0
    assert capsys.readouterr().out == f'mmrkkd {mmrkkd.__version__}\n'


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert main(['distil']) == 2
    error = capsys.readouterr().err
    assert "no command 'distil': did you mean 'distill'?" in error
    assert 'check-teacher' in error


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_a_help_of_its_own(name, capsys):
    before = sys.argv, list(sys.path), sys.modules['__main__']
    where = COMMANDS[name].where
    if where.endswith('.py'):
        assert main([name, '--help']) == 0
    else:
        with pytest.raises(SystemExit) as end:
            main([name, '--help'])
        assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: mmrkkd {name} ')
    assert (sys.argv, list(sys.path), sys.modules['__main__']) == before


@pytest.mark.parametrize(
    ('body', 'code', 'told'),
    [
        ('pass', 0, ''),
        ('import sys; sys.exit(3)', 3, ''),
        ("import sys; sys.exit('no disk')", 1, 'no disk'),
        ('import beside; beside.run()', 7, ''),
    ],
)
def test_a_script_runs_as_python_would_run_it(
    tmp_path, body, code, told, capsys
):
    (tmp_path / 'beside.py').write_text(
        'def run():\n    raise SystemExit(7)\n'
    )
    script = tmp_path / 'script.py'
    script.write_text(f"if __name__ == '__main__':\n    {body}\n")
    assert program.run_script(script, 'mmrkkd script', []) == code
    assert told in capsys.readouterr().err
    sys.modules.pop('beside', None)


def test_the_doctor_runs_where_nothing_is_installed(tmp_path):
    # -S hides everything that was installed; the checkout is on the path.
    result = subprocess.run(
        [sys.executable, '-S', '-m', 'mmrkkd', 'doctor'],
        cwd=tmp_path,
        env=dict(PYTHONPATH=str(ROOT), PATH=''),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert 'torch: not installed' in result.stdout
    assert 'mmrkkd cannot work in' in result.stdout


def test_distill_is_an_attribute_of_the_package():
    from mmrkkd.commands.distill import distill

    assert mmrkkd.distill is distill
    with pytest.raises(AttributeError, match="no attribute 'destill'"):
        mmrkkd.destill  # noqa: B018
