"""Rows of a grid in a file, so that an interrupted grid goes on."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from mmrkkd.checkpoint.atomic import write_json

from .loss_landscape import Loss, Row, State, loss_rows


class GridFile:
    """A JSON file of ``settings`` and ``rows``, written row by row.

    A loss that is not finite is null in the file and NaN in ``rows``.

    Args:
        path: The file; read if it is there.
        settings: What the grid depends on, as :mod:`json` can hold it.

    Raises:
        ValueError: the file holds a grid of other settings, or none.
    """

    def __init__(self, path: str | os.PathLike, settings: dict) -> None:
        self.path = Path(path)
        # As they will be read again: a tuple is a list.
        self.settings = json.loads(json.dumps(settings))
        self._rows: list = []
        if self.path.is_file():
            self._rows = self._read()

    @property
    def rows(self) -> list[Row]:
        """Those that are there."""
        return [
            [
                {
                    name: math.nan if value is None else value
                    for name, value in point.items()
                }
                for point in row
            ]
            for row in self._rows
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Adds a row, on the disk too.

        Args:
            row: Name to loss, for each point.

        Raises:
            OSError: it could not be written; the file is as it was.
        """
        rows = [
            *self._rows,
            [
                {
                    name: value if math.isfinite(value) else None
                    for name, value in point.items()
                }
                for point in row
            ],
        ]
        write_json(self.path, dict(settings=self.settings, rows=rows))
        self._rows = rows

    def _read(self) -> list:
        try:
            content = json.loads(self.path.read_text())
            found, rows = content['settings'], list(content['rows'])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{self.path} is no grid of losses ({error}): remove it, or '
                'give another folder'
            ) from error
        differing = [
            f'{name} ({found.get(name)!r} there, '
            f'{self.settings.get(name)!r} now)'
            for name in dict.fromkeys([*found, *self.settings])
            if found.get(name) != self.settings.get(name)
        ]
        if differing:
            raise ValueError(
                f'{self.path} is a grid of other settings, they differ in '
                f'{", ".join(differing)}: give those, remove the file, or '
                'give another folder'
            )
        return rows


def fill(
    file: GridFile,
    loss: Loss,
    weights: State,
    directions: tuple[State, State],
    coordinates: Sequence[float],
    title: str,
) -> None:
    """Makes the rows that a file lacks, under a progress bar.

    Args:
        file: Gets each row when it is done.
        loss: See :func:`mmrkkd.evaluation.loss_landscape.loss_rows`.
        weights: The same.
        directions: The same.
        coordinates: The same.
        title: Of the bar.
    """
    side = len(coordinates)
    with tqdm(
        desc=title, unit='point', total=side**2, initial=side * len(file)
    ) as bar:

        def counted(state: State) -> Mapping[str, float]:
            value = loss(state)
            bar.update()
            return value

        for row in loss_rows(
            counted, weights, directions, coordinates, len(file)
        ):
            file.add(row)


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights, by which others are known to be others.

    Args:
        weights: Name to tensor.
    """
    total = hashlib.sha256()
    for name, value in weights.items():
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
