"""What the operators and whole training steps cost."""
