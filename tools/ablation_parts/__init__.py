"""The parts of ``tools/ablation.py``."""
