"""What a runner needs beside the models: precision, processes."""

from .autocast import AutocastOptimWrapper
from .processes import join_processes

__all__ = ['AutocastOptimWrapper', 'join_processes']
