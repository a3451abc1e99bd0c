"""How the figures' options are read, each with its rule."""

import argparse


def whole_number(text: str) -> int:
    """A whole number of at least 1.

    Args:
        text: As it stands on the command line.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f'must be a whole number of at least 1, got {text!r}'
        )
    return int(text)


def positive(text: str) -> float:
    """A finite number above 0.

    Args:
        text: As it stands on the command line.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(
            f'must be a finite number above 0, got {text!r}'
        )
    return value
