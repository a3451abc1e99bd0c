"""The C code, what builds and loads it, and what calls it."""
