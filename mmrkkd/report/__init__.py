"""Pictures: detections side by side, training curves."""

from .curves import Curve, draw_curves, read_scalars
from .detections import Detections, draw_detections, judge

__all__ = [
    'Curve',
    'Detections',
    'draw_curves',
    'draw_detections',
    'judge',
    'read_scalars',
]
