"""The parts of tools/install.py. Standard library only."""
