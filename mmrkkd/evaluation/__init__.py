"""Measures beside those of the host packages."""

from .agreement import held_out_loader, teacher_agreement
from .student_names import student_classes
from .weights import load_weights

__all__ = [
    'held_out_loader',
    'load_weights',
    'student_classes',
    'teacher_agreement',
]
