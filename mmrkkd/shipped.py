"""Where the configs and the tools of this package lie on this machine."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str) -> Path:
    """A path among the configs and tools that come with the package.

    A wheel has them in ``mmrkkd/.mim``, a checkout beside the package. The
    first is looked at first: what lies beside an installed package is
    anybody's.

    Args:
        parts: Below the root of the repository, e.g. 'configs', 'demo'.

    Returns:
        The path, whether there is such a file or not.
    """
    installed = PACKAGE / '.mim'
    root = installed if installed.is_dir() else PACKAGE.parent
    return root.joinpath(*parts)
