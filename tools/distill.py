"""Distils a teacher into a student, without a config to write.

    python tools/distill.py STUDENT_CONFIG --teacher CONFIG CHECKPOINT

The same as ``mmrkkd distill``.
"""

import sys
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from mmrkkd.commands.distill import main

if __name__ == '__main__':
    sys.exit(main())
