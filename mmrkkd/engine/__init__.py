"""What a runner needs beside the models: optimizer wrappers."""

from .autocast import AutocastOptimWrapper

__all__ = ['AutocastOptimWrapper']
