"""Pictures, tables and records made from runs."""

from .curves import Curve, draw_curves
from .logs import log_files, means_of, points_of, read_log
from .surroundings import surroundings
from .tables import markdown_table, plain_table

__all__ = [
    'Curve',
    'draw_curves',
    'log_files',
    'markdown_table',
    'means_of',
    'plain_table',
    'points_of',
    'read_log',
    'surroundings',
]
