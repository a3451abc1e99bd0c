"""Makes a small file of weights out of a checkpoint, for others to use.

    python tools/publish_model.py CHECKPOINT student.pth

The same as ``mmrkkd publish``.
"""

import sys
from pathlib import Path

# The folder of the package, so that a checkout works uninstalled too.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from mmrkkd.commands.publish import main, publish, published

__all__ = ['main', 'publish', 'published']

if __name__ == '__main__':
    sys.exit(main())
