"""Some of many, evenly spaced."""

import numpy as np


def evenly(length: int, count: int) -> list[int]:
    """Places in a list, from its first to its last.

    Args:
        length: Of the list.
        count: How many places, all of a list that has fewer.
    """
    spread = np.linspace(0, length - 1, min(count, length))
    return [int(place) for place in spread.round()]
