"""Runs a training script as soon as a file is there.

    python tools/gpu/train_after.py FILE MODULES SCRIPT ARGUMENTS...

The modules, with commas between, are imported meanwhile: that takes longer
than anything else before the first step.
"""

import importlib
import os
import runpy
import sys
import time
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.1


def main() -> None:
    """Imports, waits, and becomes the script."""
    parent = os.getppid()
    _, file, modules, script, *arguments = sys.argv
    for name in filter(None, modules.split(',')):
        importlib.import_module(name)
    while not Path(file).is_file():
        if os.getppid() != parent:
            raise SystemExit(f'{file} will not come: who waited is gone')
        time.sleep(SECONDS_BETWEEN_LOOKS)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    main()
