"""Measures beside those of the host packages."""

from .agreement import held_out_loader, teacher_agreement
from .student_names import student_classes

__all__ = ['held_out_loader', 'student_classes', 'teacher_agreement']
