"""Measures beside those of the host packages."""

from .agreement import held_out_loader, teacher_agreement

__all__ = ['held_out_loader', 'teacher_agreement']
