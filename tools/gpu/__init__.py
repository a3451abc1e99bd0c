"""What needs a GPU: the check, and the evidence on photos."""
