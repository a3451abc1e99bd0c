"""The one way to run, record, resume, compare and tabulate trainings.

``methods``, ``cells``: what is trained. A method is a row of a table, a cell
is one method with one seed. ``pool``, ``jobs``, ``processes``: cells side by
side, each in processes of its own. ``records``: what a cell leaves in its
folder, and when it need not be trained again. ``detection``: what a detector
finds on each image. ``report``, ``progress``: from results to a table.
``watching``, ``growth``: what a training takes of its machine.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class ExperimentError(RuntimeError):
    """Something that the user must put right; the message says what."""
